//! While accounts change all the time, and while services restart, nothing differs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;
use test_harness::{Http, wait_until};

use super::{places, run_in, verify};
use crate::place::Place;
use crate::random::{Random, seed};
use crate::requests::{create_account, free_port, john_doe};

/// Threads that write at the same time.
const WRITERS: usize = 4;

/// How often each process restarts.
const RESTARTS: usize = 3;

/// How often the command runs; `.ci/long` asks for 100.
fn runs() -> usize {
    std::env::var("TANDEM_TEST_VERIFY_RUNS").map_or(20, |runs| runs.parse().expect("a number"))
}

/// Creates, blocks, renames and deletes accounts until `stop` is set. No answer is a fault only while nothing restarts.
fn write(accounts: &Http, stop: &AtomicBool, written: &AtomicU64) {
    let json = [("Content-Type", "application/json")];
    let send = |method: &str, path: &str, body: serde_json::Value| {
        let answer = accounts.try_send(method, path, &json, body.to_string().into_bytes()).ok();
        written.fetch_add(u64::from(answer.is_some()), Ordering::Relaxed);
        answer.filter(|answer| answer.status < 300)
    };
    while !stop.load(Ordering::Relaxed) {
        let Some(account) = send("POST", "/account", john_doe()) else { continue };
        let path = format!("/account?id={}", account.text("id"));
        for change in [json!({"status": "BLOCKED"}), json!({"beholder_name": "Jane Doe"}), json!({"status": "ACTIVE"})]
        {
            send("PATCH", &path, change);
        }
        if written.load(Ordering::Relaxed).is_multiple_of(3) {
            send("DELETE", &path, json!({}));
        }
    }
}

/// Does `work` while accounts are written.
fn under_load(accounts: &Http, work: impl FnOnce()) {
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| write(&Http::new(accounts.address()), &stop, &written));
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until("accounts are written", || (written.load(Ordering::Relaxed) > 100).then_some(()));
            work();
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    eprintln!("{} requests were answered meanwhile", written.into_inner());
}

#[test]
fn nothing_differs_under_load() {
    for place in places() {
        let services = place.start_services();
        under_load(&services.accounts, || {
            for _ in 0..runs() {
                verify(&place, &services, &[]).expect_equal();
            }
        });
        verify(&place, &services, &[]).expect_equal();
        services.stop();
    }
}

#[test]
fn nothing_differs_while_services_restart() {
    let place = Place::durable();
    let mut random = Random::new(seed());
    let ports = [free_port(&mut random), free_port(&mut random)].map(|port| port.to_string());
    let settings = [("ACCOUNT_PORT", ports[0].as_str()), ("CARD_PORT", ports[1].as_str())];
    let mut tandem = place.start_all_in_one_with(&settings);
    let accounts = tandem.ready_service(account_service::NAME);
    create_account(&accounts);
    verify_under_load(&place, &accounts, &ports, || {
        for _ in 0..RESTARTS {
            assert!(tandem.terminate().success(), "{:#?}", tandem.lines());
            tandem = place.start_all_in_one_with(&settings);
            tandem.ready_service(card_service::NAME);
        }
    });
    assert!(tandem.terminate().success(), "{:#?}", tandem.lines());
}

#[test]
fn nothing_differs_while_separate_services_restart_in_turn() {
    let Some(place) = Place::apache_kafka() else { return };
    let mut random = Random::new(seed());
    let ports = [free_port(&mut random), free_port(&mut random)].map(|port| port.to_string());
    let names = [account_service::NAME, card_service::NAME];
    let start = |service: usize| place.start_with(names[service], &[("PORT", &ports[service])]);
    let mut processes = [0, 1].map(start);
    let accounts = processes[0].ready_service(names[0]);
    processes[1].ready_service(names[1]);
    verify_under_load(&place, &accounts, &ports, || {
        for service in [0, 1].repeat(RESTARTS) {
            let process = &mut processes[service];
            assert!(process.terminate().success(), "{:#?}", process.lines());
            *process = start(service);
            process.ready_service(names[service]);
        }
    });
    for process in &mut processes {
        assert!(process.terminate().success(), "{:#?}", process.lines());
    }
}

/// Runs the command again and again on the services at `ports`, while accounts are written and `restart` restarts services.
fn verify_under_load(place: &Place, accounts: &Http, ports: &[String; 2], restart: impl FnOnce()) {
    let urls = ports.each_ref().map(|port| format!("http://127.0.0.1:{port}"));
    let (stop, folder, log) = (AtomicBool::new(false), place.folder(), place.log_settings());
    under_load(accounts, || {
        std::thread::scope(|scope| {
            let verifying = scope.spawn(|| {
                let mut verified = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    verified.push(run_in(folder, log.clone(), &["--account-url", &urls[0], "--card-url", &urls[1]]));
                }
                verified
            });
            let restarted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(restart));
            stop.store(true, Ordering::Relaxed);
            verifying.join().expect("no panic").iter().for_each(|verified| verified.expect_equal());
            restarted.expect("services that restart");
        });
    });
}
