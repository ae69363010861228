//! `Account-Version`: the version of the account's latest event, on every 2xx about one account.

use serde_json::json;

use crate::service::{TestService, UNKNOWN_ID, account};

const HEADER: &str = "account-version";

#[test]
fn it_is_the_version_of_the_latest_event_and_the_etag_that_of_the_row() {
    let service = TestService::start();
    let created = service.create("John Doe", "US");
    let path = created.header("location").to_owned();
    let by_number = format!("/accounts/by-number?account_number={}", created.text("account_number"));
    assert_eq!((created.header("etag"), created.header(HEADER)), ("\"1\"", "1"));
    for (method, body, etag, version) in [
        ("PATCH", json!({"beholder_name": "Jane Doe"}), "\"2\"", "1"),
        ("PUT", json!({"status": "BLOCKED"}), "\"3\"", "3"),
        ("PATCH", json!({"status": "BLOCKED"}), "\"3\"", "3"),
        ("PUT", json!({"country_code": "DE"}), "\"4\"", "3"),
        ("PATCH", json!({"country_code": "FR", "status": "ACTIVE"}), "\"5\"", "5"),
        ("PUT", json!({"beholder_name": "John Doe"}), "\"6\"", "5"),
    ] {
        let changed = service.send_json(method, &path, &body);
        for answer in [changed, service.get(&path), service.get(&by_number)] {
            assert_eq!((answer.status, answer.header("etag"), answer.header(HEADER)), (200, etag, version), "{body}");
            assert_eq!(answer.body.as_object().unwrap().len(), 8, "the body stays as it was: {}", answer.raw);
        }
    }
    let deleted = service.delete(&path);
    assert_eq!((deleted.status, deleted.header(HEADER)), (200, "7"));
    assert_eq!(deleted.raw, r#"{"message":"Account deleted successfully"}"#);
    for path in [&path, &by_number] {
        assert_eq!(service.get(path).header(HEADER), "7");
        let known = service.send("GET", path, &[("If-None-Match", "*")], Vec::new());
        assert_eq!((known.status, known.header(HEADER)), (304, "7"));
        assert_eq!(service.send("HEAD", path, &[], Vec::new()).header(HEADER), "7");
    }
    let events = service.stop_and_read_log();
    let versions: Vec<_> = events.iter().map(|placed| placed.record.headers.get("ce_sequence").unwrap()).collect();
    assert_eq!(versions, [b"1", b"3", b"5", b"7"], "the versions that events have");
}

#[test]
fn an_error_or_a_list_has_none() {
    let service = TestService::start();
    let id = service.new_id();
    for answer in [
        service.get("/accounts"),
        service.get(&account(UNKNOWN_ID)),
        service.patch(&id, &json!({"status": "gone"})),
        service.send_if_match("PATCH", &id, "\"9\"", &json!({"status": "BLOCKED"})),
    ] {
        assert_eq!(answer.header(HEADER), "", "{}", answer.raw);
    }
}
