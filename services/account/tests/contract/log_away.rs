//! With the event log away accounts are made, changed and deleted all the same, and told of later (ARCHITECTURE.md A2,
//! A3).

use serde_json::{Value, json};
use test_harness::wait_until;

use crate::service::{Placed, TestService, account};

/// The versions of an account's events, in the order of the log.
fn versions(log: &[Placed], id: &str) -> Vec<String> {
    let of_account = log.iter().filter(|placed| placed.record.key.as_deref() == Some(id.as_bytes()));
    let version = |placed: &Placed| {
        let sequence = placed.record.headers.get("ce_sequence").expect("a version");
        String::from_utf8(sequence.to_vec()).expect("text")
    };
    of_account.map(version).collect()
}

#[test]
fn nothing_waits_for_the_log_and_nothing_is_left_out_when_it_is_back() {
    let service = TestService::start();
    let first = service.new_id();
    service.log_of(1);
    service.set_log_away(true);
    service.patch(&first, &json!({"status": "BLOCKED"})).expect(200);
    let ids: Vec<_> = (0..10).map(|_| service.new_id()).collect();
    for id in &ids {
        service.patch(id, &json!({"status": "BLOCKED"})).expect(200);
        service.patch(id, &json!({"beholder_name": "Jane Doe"})).expect(200);
        service.delete(&account(id)).expect(200);
    }
    assert_eq!(service.list("?status=DELETED")["total"], 10);
    // It shows, and is no reason to send callers elsewhere.
    let ready = wait_until("it shows", || {
        let ready = service.get("/readyz").expect(200);
        // The relay counts what waits with each attempt.
        (ready["relay"]["failure"].is_string() && ready["relay"]["waiting"] == 31).then_some(ready)
    });
    assert_eq!((&ready["status"], &ready["relay"]["publishing"]), (&json!("ready"), &json!(false)));
    assert_eq!(ready["relay"]["failure"], "the event log is unavailable: the test took it away");
    assert_eq!(service.log().len(), 1);

    service.set_log_away(false);
    let log = service.log_of(32);
    assert_eq!(versions(&log, &first), ["1", "2"]);
    for id in &ids {
        assert_eq!(versions(&log, id), ["1", "2", "4"]);
    }
    wait_until("it shows", || {
        let relay = service.get("/readyz").expect(200)["relay"].take();
        (relay == json!({"publishing": true, "published": 32, "waiting": 0, "failure": Value::Null})).then_some(())
    });
    assert_eq!(service.stop_and_read_log(), log, "each once");
}

#[test]
fn what_the_log_did_not_take_before_a_restart_it_takes_after() {
    let service = TestService::start();
    service.set_log_away(true);
    let ids: Vec<_> = (0..5).map(|_| service.new_id()).collect();
    service.delete(&account(&ids[0])).expect(200);
    // The log is still away when the service starts again.
    let service = service.restart();
    assert_eq!(service.list("")["total"], 5);
    assert_eq!(service.log().len(), 0);
    assert!(!service.is_backlog_published());
    service.get("/readyz").expect(200);
    service.patch(&ids[1], &json!({"status": "BLOCKED"})).expect(200);
    service.set_log_away(false);
    let log = service.log_of(7);
    wait_until("the backlog is published", || service.is_backlog_published().then_some(()));
    assert_eq!(
        (versions(&log, &ids[0]), versions(&log, &ids[1])),
        (vec!["1".into(), "2".into()], vec!["1".into(), "2".into()])
    );
    assert_eq!(service.stop_and_read_log(), log);
}

#[test]
fn an_outbox_without_a_backlog_waits_until_the_log_is_known_to_have_what_left_it() {
    let service = TestService::start();
    service.new_id();
    service.log_of(1);
    wait_until("nothing is open", || service.is_backlog_published().then_some(()));
    let service = service.restart();
    wait_until("nothing was left behind", || service.is_backlog_published().then_some(()));
    service.set_log_away(true);
    let service = service.restart();
    wait_until("the relay has tried", || (service.get("/readyz").body["relay"]["publishing"] == false).then_some(()));
    // Until the log answers, it may be another one.
    assert!(!service.is_backlog_published());
    service.set_log_away(false);
    wait_until("nothing was left behind", || service.is_backlog_published().then_some(()));
}
