//! A client that creates or changes an account and at once asks the card service for a card, with the `Account-Version` that it was given
//! and `Prefer: wait`: it is never told "not found", and never answered by an older state.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use account_events::AccountStatus;
use serde_json::json;
use test_harness::{Answer, DEADLINE, Http, Process, wait_until};

use crate::cluster::Cluster;
use crate::events::record;
use crate::place::Place;
use crate::requests::{card_of, john_doe};
use crate::servers;

/// Accounts of a test, unless `TANDEM_TEST_ROUND_TRIPS` names another number.
const ACCOUNTS: usize = 2_000;

/// Of so many accounts, one is also blocked, activated and deleted.
const CHANGED: usize = 20;

/// How many requests may wait in an instance.
const WAITERS: usize = 10_000;

#[test]
fn on_the_embedded_event_log_every_card_is_created() {
    let place = Place::embedded();
    let services = place.start_services();
    read_writes(std::slice::from_ref(&services.accounts), std::slice::from_ref(&services.cards));
    services.stop();
}

#[test]
fn on_apache_kafka_every_card_is_created() {
    let Some(place) = Place::apache_kafka() else { return };
    let services = place.start_services();
    read_writes(std::slice::from_ref(&services.accounts), std::slice::from_ref(&services.cards));
    services.stop();
}

#[test]
fn behind_a_round_robin_on_three_card_instances_every_card_is_created() {
    let Some(servers) = servers::shared() else { return };
    let cluster = Cluster::start("read-your-writes", servers, 2, 3);
    let [accounts, cards] = [&cluster.accounts, &cluster.cards]
        .map(|instances| instances.iter().filter_map(|instance| instance.http()).collect::<Vec<_>>());
    read_writes(&accounts, &cards);
}

/// Writes to each of the account instances and reads from each of the card instances in turn.
fn read_writes(accounts: &[Http], cards: &[Http]) {
    let count = std::env::var("TANDEM_TEST_ROUND_TRIPS").map_or(ACCOUNTS, |count| count.parse().expect("a number"));
    let mut took: Vec<Duration> = Vec::with_capacity(count);
    let mut round_robin = cards.iter().cycle();
    for (number, accounts) in (0..count).zip(accounts.iter().cycle()) {
        let created = accounts.post("/account", &john_doe());
        let id = created.text("id").to_owned();
        let mut create_card = |written: &Answer| {
            let cards = round_robin.next().expect("it has no end");
            let version = written.header("account-version");
            let headers = [("Content-Type", "application/json"), ("Prefer", "wait=5"), ("Account-Version", version)];
            let account = id.parse().expect("an account id");
            cards.send("POST", "/card", &headers, card_of(account).to_string().into_bytes())
        };
        let asked = Instant::now();
        let card = create_card(&created);
        took.push(asked.elapsed());
        assert_eq!((card.status, card.header("preference-applied")), (201, "wait=5"), "{number}: {}", card.raw);
        if number % CHANGED == 0 {
            let path = format!("/account?id={id}");
            for (status, expected) in [("BLOCKED", 403), ("ACTIVE", 201)] {
                let changed = accounts.send_json("PATCH", &path, &json!({ "status": status }));
                let card = create_card(&changed);
                assert_eq!(card.status, expected, "{number}: {}", card.raw);
            }
            let card = create_card(&accounts.delete(&path));
            card.expect_error(403, "account_deleted", "cannot create card for deleted account", None);
        }
    }
    took.sort_unstable();
    let at = |share: f64| took[(share * (took.len() - 1) as f64) as usize];
    eprintln!("{count} times POST /card with a wait: p50 {:?}, p99 {:?}, longest {:?}", at(0.5), at(0.99), at(1.0));
}

/// The physical memory of the process, in MiB.
fn memory(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().strip_suffix(" kB").and_then(|kilobytes| kilobytes.parse::<u64>().ok()).expect("a number") / 1_024
}

#[test]
fn ten_thousand_requests_wait_at_once_one_more_is_refused_and_all_are_answered() {
    assert!(process::raise_descriptor_limit() > WAITERS + 500, "the test needs a larger hard limit of ulimit -n");
    let place = Place::kafka();
    let mut service = place.start(card_service::NAME);
    let cards = service.ready_service(card_service::NAME);
    let (account, before) = ("01936f2e-7b1a-7c40-8000-0123456789ab".parse().expect("an account id"), memory(&service));
    let path = format!("/account-view?account_id={account}");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=30\r\nConnection: close\r\n\r\n");
    let started = Instant::now();
    let waiting: Vec<_> = (0..WAITERS)
        .map(|_| {
            let mut connection = TcpStream::connect(cards.address()).expect("a place");
            connection.set_read_timeout(Some(DEADLINE)).expect("a timeout");
            connection.write_all(request.as_bytes()).expect("a request");
            connection
        })
        .collect();
    wait_until("all wait", || (cards.get("/readyz").body["view"]["waiting"] == WAITERS).then_some(()));
    let (opened, during) = (started.elapsed(), memory(&service));
    let refused = cards.send("GET", &path, &[("Prefer", "wait=30")], Vec::new());
    refused.expect_error(503, "overloaded", "too many requests wait for the account view, try again", None);
    assert_eq!((refused.header("preference-applied"), refused.header("retry-after")), ("", "1"));
    let published = Instant::now();
    place.publish(&[record(account, 1, AccountStatus::Active)]);
    for mut connection in waiting {
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("preference-applied: wait=30"), "{answer}");
    }
    eprintln!(
        "{WAITERS} requests wait after {opened:?}: {during} MiB, {before} MiB before; answered {:?} after the event",
        published.elapsed()
    );
}
