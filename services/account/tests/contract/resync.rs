//! The state of every account, published again because someone asks for it: all of it, also when it is cut short, and
//! never an old version behind a newer one (ARCHITECTURE.md A3), whatever is changed meanwhile.

use std::collections::HashMap;

use account_service::outbox::resync::{Progress, Resync};
use serde_json::json;
use test_harness::{Http, at_once, wait_until};
use tokio::runtime::Runtime;

use crate::lost_log::last_of_each;
use crate::service::{Placed, TestService, account};

/// More than a page of states.
const ACCOUNTS: usize = 1_200;

/// Threads that change accounts meanwhile.
const CHANGERS: usize = 4;

/// A request, seen from outside of the service.
struct Asked {
    runtime: Runtime,
    resync: Resync,
}

impl Asked {
    fn of(service: &TestService) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let resync = runtime.block_on(Resync::request(&service.database())).expect("a database");
        Asked { runtime, resync }
    }

    fn is_done(&self) -> bool {
        self.runtime.block_on(self.resync.progress()).expect("a database") == Progress::Done
    }

    fn wait(&self) {
        wait_until("every account is published again", || self.is_done().then_some(()));
    }
}

fn records_of_each(log: &[Placed]) -> HashMap<String, usize> {
    let mut records = HashMap::new();
    for Placed { record, .. } in log {
        let key = record.key.clone().expect("a key");
        *records.entry(String::from_utf8(key).expect("an id")).or_default() += 1;
    }
    records
}

#[test]
fn every_account_is_published_again_while_others_change() {
    const RESYNCS: usize = 3;
    let service = TestService::start();
    let ids: Vec<_> = (0..ACCOUNTS).map(|_| service.new_id()).collect();
    let (changing, resting) = ids.split_at(CHANGERS * 5);
    service.delete(&account(&resting[0])).expect(200);
    service.patch(&resting[1], &json!({"beholder_name": "Jane Doe"})).expect(200);
    let change = |thread: usize, http: &Http| {
        for round in 0..60 {
            let status = if round % 2 == 0 { "BLOCKED" } else { "ACTIVE" };
            for id in &changing[thread * 5..][..5] {
                http.send_json("PATCH", &account(id), &json!({ "status": status })).expect(200);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| at_once(CHANGERS, &service, change));
        for _ in 0..RESYNCS {
            Asked::of(&service).wait();
        }
    });
    let log = service.stop_and_read_log();
    let (last, records) = (last_of_each(&log), records_of_each(&log));
    assert_eq!(last.len(), ACCOUNTS);
    for id in changing {
        assert_eq!(last[id].0, 61, "{id}");
        assert!(records[id] >= 61, "each event of {id}, and its states: {}", records[id]);
    }
    // A change of name is no event. A resync repeats the version of the latest event.
    assert_eq!((last[&resting[1]].0, records[&resting[1]]), (1, 1 + RESYNCS));
    assert!(last[&resting[0]].1.contains("DELETED"));
    for id in &resting[2..] {
        assert_eq!((last[id].0, records[id]), (1, 1 + RESYNCS), "{id}");
    }
}

#[test]
fn a_request_stands_until_it_is_met() {
    let service = TestService::start();
    let ids: Vec<_> = (0..ACCOUNTS).map(|_| service.new_id()).collect();
    service.log_of(ACCOUNTS);
    // The log goes away after the first page.
    service.set_publishes_left(1);
    let asked = Asked::of(&service);
    wait_until("the log is away", || {
        let relay = &service.get("/readyz").expect(200)["relay"];
        (relay["publishing"] == json!(false)).then_some(())
    });
    service.patch(&ids[0], &json!({"status": "BLOCKED"})).expect(200);
    assert!(!asked.is_done());
    let service = service.restart();
    assert!(!asked.is_done());
    service.set_log_away(false);
    asked.wait();
    let log = service.stop_and_read_log();
    let (last, records) = (last_of_each(&log), records_of_each(&log));
    assert_eq!(last[&ids[0]].0, 2);
    let again = ids.iter().map(|id| records[id] - 1);
    // The first page came twice.
    assert!(again.clone().all(|again| (1..=3).contains(&again)), "{records:?}");
    assert_eq!(again.sum::<usize>(), ACCOUNTS + 1_000 + 1);
}

#[test]
fn nobody_publishes_so_the_next_one_to_start_does() {
    let service = TestService::start();
    service.new_id();
    service.log_of(1);
    let mut asked = None;
    let service = service.restart_between(|database| {
        let runtime = Runtime::new().expect("a runtime");
        let resync = runtime.block_on(Resync::request(database)).expect("a database");
        assert_eq!(runtime.block_on(resync.progress()).expect("a database"), Progress::Standing);
        asked = Some(Asked { runtime, resync });
    });
    asked.expect("asked").wait();
    assert_eq!(service.stop_and_read_log().len(), 2);
}
