//! What was answered is there after a restart, and nothing is published twice.

use serde_json::json;

use crate::service::{TestService, account};

#[test]
fn everything_is_there_after_a_restart_and_goes_on() {
    let service = TestService::start();
    let ids: Vec<_> = (0..20).map(|_| service.new_id()).collect();
    for id in &ids[..5] {
        service.patch(id, &json!({"status": "BLOCKED"})).expect(200);
    }
    service.delete(&account(&ids[0])).expect(200);
    service.patch(&ids[7], &json!({"beholder_name": "Jane Doe"})).expect(200);
    let paths: Vec<_> = ids.iter().map(|id| account(id)).collect();
    let lists = ["/accounts", "/accounts?limit=3", "/accounts?status=BLOCKED", "/accounts?status=DELETED&limit=1"];
    let read = |service: &TestService| -> Vec<String> {
        paths.iter().map(String::as_str).chain(lists).map(|path| service.get(path).raw).collect()
    };
    let before = read(&service);
    let numbers: Vec<_> = paths.iter().map(|path| service.get(path).text("account_number").to_owned()).collect();
    let log = service.log_of(26);

    // Twice: the second start finds what the first one left behind.
    let service = service.restart().restart();
    assert_eq!(read(&service), before);
    for (number, path) in numbers.iter().zip(&paths) {
        let by_number = service.get(&format!("/accounts/by-number?account_number={number}"));
        assert_eq!(by_number.raw, service.get(path).raw);
    }
    let new = service.create("Zoë", "FR");
    assert!(!numbers.contains(&new.text("account_number").to_owned()));
    let list = service.list("?limit=2");
    assert_eq!(
        (&list["total"], &list["accounts"][0], &list["accounts"][1]["id"]),
        (&json!(21), &new.body, &json!(ids[19]))
    );
    let changed = service.send_if_match("PATCH", &ids[1], "\"2\"", &json!({"status": "ACTIVE"}));
    assert_eq!((changed.status, &changed.body["version"]), (200, &json!(3)));
    service.delete(&account(&ids[0])).expect(409);

    let after = service.stop_and_read_log();
    assert_eq!(after.len(), 28, "one event more for each change, and none again");
    assert!(log.iter().all(|placed| after.contains(placed)), "what was in the log stands where it stood");
}

#[test]
fn what_is_published_leaves_the_outbox_and_stays_published() {
    let mut service = TestService::start();
    for round in 1..=3 {
        for _ in 0..10 {
            service.new_id();
        }
        service = service.restart();
        assert_eq!(service.log().len(), round * 10);
    }
    assert_eq!(service.list("")["total"], 30);
}

#[test]
fn a_file_has_one_service_and_a_server_has_many() {
    let service = TestService::start();
    let id = service.new_id();
    let mut another = service.start_another();
    if service.is_on_postgres() {
        another.http().get(&account(&id)).expect(200);
        another.http().delete(&account(&id)).expect(200);
        service.delete(&account(&id)).expect(409);
        return;
    }
    let refused = another.wait().expect_err("refused").to_string();
    assert!(refused.contains("account.db is in use by another process"), "{refused}");
    let service = service.restart();
    assert_eq!(service.list("")["total"], 1, "the lock ends with its holder");
}
