//! Which events change the account view, and which are stale.

use account_events::AccountStatus::{Active, Blocked, Deleted};
use event_log::Record;
use serde_json::Value;

use crate::service::{TestService, UNKNOWN_ID, by_account, changed, created, new_id};

/// A record of the contract's golden files, without a key if the file has none.
fn golden(file: &str) -> Vec<Record> {
    let path = format!("{}/../../crates/account-events/testdata/{file}", env!("CARGO_MANIFEST_DIR"));
    let bytes = |value: &Value| value.as_str().map(|text| text.as_bytes().to_vec());
    let header = |pair: &Value| (pair[0].as_str().expect("a name").to_owned(), bytes(&pair[1]).expect("a value"));
    let text = std::fs::read_to_string(path).expect("golden records");
    let record = |line| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let headers = line["headers"].as_array().expect("a list").iter().map(header).collect();
        Record { key: bytes(&line["key"]), value: bytes(&line["value"]), headers }
    };
    text.lines().map(record).collect()
}

/// An event as the seed writes it: no key, no headers.
fn bare(value: String) -> Record {
    Record { value: Some(value.into()), ..Record::default() }
}

fn bare_status(id: &str, status: &str) -> Record {
    bare(format!(r#"{{"account_id":"{id}","status":"{status}","type":"account.status_changed"}}"#))
}

#[track_caller]
fn assert_refused(service: &TestService, id: &str, text: &str) {
    let answer = service.post_card("US", id);
    assert_eq!((answer.status, answer.text("error")), (403, text));
}

const DELETED: &str = "cannot create card for deleted account";
const INACTIVE: &str = "cannot create card for inactive account";

#[test]
fn the_events_of_the_seeds_go_producer_are_applied() {
    let service = TestService::start();
    let [creation, deletion] = golden("seed-go-producer.jsonl").try_into().expect("two records");
    assert!(creation.key.is_none() && creation.headers.is_empty());
    assert_eq!(service.post_card("US", UNKNOWN_ID).status, 404);
    service.tell(&[creation]);
    service.card("US", UNKNOWN_ID);
    service.tell(&[deletion]);
    assert_refused(&service, UNKNOWN_ID, DELETED);
    service.wait_until_all_deleted(&by_account(UNKNOWN_ID));
    assert_eq!(service.view()["quarantined"], 0);
}

#[test]
fn the_events_of_our_own_golden_records_are_applied() {
    let service = TestService::start();
    let [creation, deletion] = golden("tandem.jsonl").try_into().expect("two records");
    let id = String::from_utf8(creation.key.clone().expect("a key")).expect("an id");
    service.tell(&[creation]);
    service.card("US", &id);
    service.tell(&[deletion]);
    assert_refused(&service, &id, DELETED);
}

#[test]
fn without_versions_the_order_of_arrival_decides_and_deleted_is_final() {
    let service = TestService::start();
    let id = new_id();
    service.tell(&[bare_status(&id, "BLOCKED")]);
    assert_refused(&service, &id, INACTIVE);
    service.tell(&[bare_status(&id, "ACTIVE")]);
    service.card("US", &id);
    service.tell(&[bare_status(&id, "DELETED")]);
    for late in ["ACTIVE", "BLOCKED"] {
        service.tell(&[bare_status(&id, late)]);
        assert_refused(&service, &id, DELETED);
    }
}

#[test]
fn an_event_that_comes_late_or_again_changes_nothing() {
    let service = TestService::start();
    let id = service.account();
    service.tell(&[changed(&id, Active, 3), changed(&id, Blocked, 2)]);
    service.card("US", &id);
    service.tell(&[changed(&id, Blocked, 4), changed(&id, Blocked, 4), changed(&id, Active, 3), created(&id)]);
    assert_refused(&service, &id, INACTIVE);
    // The seed's events have no version, so they never override an event with a version.
    service.tell(&[bare_status(&id, "ACTIVE")]);
    assert_refused(&service, &id, INACTIVE);
    service.tell(&[changed(&id, Deleted, 5), changed(&id, Active, 6), created(&id), bare_status(&id, "ACTIVE")]);
    assert_refused(&service, &id, DELETED);
    assert_eq!(service.view()["accounts"], 1);
}

#[test]
fn an_event_may_be_the_first_that_is_heard_of_an_account() {
    let service = TestService::start();
    let ids = [new_id(), new_id(), new_id()];
    service.tell(&[changed(&ids[0], Active, 9), changed(&ids[1], Blocked, 2), changed(&ids[2], Deleted, 4)]);
    service.card("US", &ids[0]);
    assert_refused(&service, &ids[1], INACTIVE);
    assert_refused(&service, &ids[2], DELETED);
}

#[test]
fn fields_and_headers_that_are_unknown_are_ignored() {
    let service = TestService::start();
    let (bare_id, id) = (new_id(), new_id());
    let extended = |id: &str| {
        format!(r#"{{"holder":{{"n":[1,null]}},"type":"account.created","account_id":"{id}","status":"ACTIVE","v":2}}"#)
    };
    let mut record = created(&id);
    record.value = Some(extended(&id).into());
    record.headers.push("ce_dataschema", &[0xff]);
    service.tell(&[bare(extended(&bare_id)), record]);
    service.card("US", &bare_id);
    service.card("US", &id);
    assert_eq!(service.view()["quarantined"], 0);
}
