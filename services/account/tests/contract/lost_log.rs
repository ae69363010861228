//! A log that lacks what was published (recreated, restored to an older copy, another one) gets the state of every
//! account; and nothing old ever lands behind something newer (ARCHITECTURE.md A3).

use std::collections::HashMap;

use serde_json::json;
use test_harness::wait_until;

use crate::service::{Placed, TestService, account};

/// The last version and value of each account in the log; panics if an account's versions go backwards.
pub(crate) fn last_of_each(log: &[Placed]) -> HashMap<String, (u64, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let mut last: HashMap<String, (u64, String)> = HashMap::new();
    for Placed { record, .. } in log {
        let id = text(record.key.as_deref().expect("a key"));
        let sequence = record.headers.get("ce_sequence").expect("a version");
        let version = text(sequence).parse().expect("a number");
        let before = last.insert(id.clone(), (version, text(record.value.as_deref().expect("a value"))));
        assert!(before.is_none_or(|(before, _)| before <= version), "{id}: version {version} behind a newer one");
    }
    last
}

#[test]
fn an_empty_log_is_told_the_state_of_every_account_and_nothing_old_behind_it() {
    let service = TestService::start();
    let ids: Vec<_> = (0..2_500).map(|_| service.new_id()).collect();
    service.patch(&ids[0], &json!({"status": "BLOCKED"})).expect(200);
    service.delete(&account(&ids[1])).expect(200);
    service.patch(&ids[2], &json!({"beholder_name": "Jane Doe"})).expect(200);
    service.log_of(2_502);

    let mut while_away = String::new();
    let service = service.restart_with_an_empty_log(|service| {
        // These wait in the outbox while the log is away, and are published before the state of every account.
        service.patch(&ids[3], &json!({"status": "BLOCKED"})).expect(200);
        service.patch(&ids[3], &json!({"status": "ACTIVE"})).expect(200);
        service.patch(&ids[0], &json!({"status": "ACTIVE"})).expect(200);
        while_away = service.new_id();
    });
    let all = || Some(last_of_each(&service.log())).filter(|last| last.len() == 2_501);
    let last = wait_until("the log has every account", all);
    let state = |id: &str| {
        let (version, value) = &last[id];
        (*version, value.split("\"status\":").nth(1).expect("a status").to_owned())
    };
    assert_eq!(state(&ids[0]), (3, "\"ACTIVE\"}".to_owned()));
    assert_eq!(state(&ids[1]), (2, "\"DELETED\"}".to_owned()));
    assert_eq!(state(&ids[2]), (1, "\"ACTIVE\"}".to_owned()), "a change of name is no event");
    assert_eq!(state(&ids[3]), (3, "\"ACTIVE\"}".to_owned()));
    assert_eq!(state(&while_away), (1, "\"ACTIVE\"}".to_owned()));

    // And from there on as ever.
    service.delete(&account(&ids[3])).expect(200);
    let log = service.stop_and_read_log();
    assert_eq!(last_of_each(&log)[&ids[3]].0, 4);
    // Each account's state, what waited in the outbox, and the deletion. The outbox is cleared some time after the log has
    // what is in it, so what had been published before may have waited in it too.
    let least = 2_501 + 4 + 1;
    assert!((least..=least + 2_502).contains(&log.len()), "{} records", log.len());
}

#[test]
fn a_log_that_may_lose_records_is_told_the_state_of_every_account_once_more() {
    let service = TestService::start();
    let id = service.new_id();
    service.patch(&id, &json!({"status": "BLOCKED"})).expect(200);
    let other = service.new_id();
    service.log_of(3);
    service.set_log_may_lose_records();
    let service = service.restart();
    let last = last_of_each(&service.log_of(5));
    assert_eq!((last[&id].0, last[&other].0), (2, 1));
    assert_eq!(service.restart().stop_and_read_log().len(), 5, "once");
}

#[test]
fn a_log_that_has_everything_is_told_nothing_again() {
    let mut service = TestService::start();
    for _ in 0..20 {
        service.new_id();
    }
    for _ in 0..3 {
        service = service.restart();
    }
    assert_eq!(service.stop_and_read_log().len(), 20);
}
