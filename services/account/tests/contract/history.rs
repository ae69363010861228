//! `GET /account/history?id=&limit=&after=`: what happened to an account.

use std::fmt::Write;

use clock::Clock;
use serde_json::{Value, json};
use test_harness::{Http, at_once};

use crate::idempotency::keyed;
use crate::service::{START_MICROS, TestService, UNKNOWN_ID, account};

/// `/account/history?id=`
fn history(id: &str) -> String {
    format!("/account/history?id={id}")
}

/// All entries, read in pages of `limit`.
#[track_caller]
fn all(service: &Http, id: &str, limit: usize) -> Vec<Value> {
    let (mut entries, mut after) = (Vec::new(), String::new());
    loop {
        let page = service.get(&format!("{}&limit={limit}{after}", history(id))).expect(200);
        let changes = page["changes"].as_array().expect("a list");
        assert!(changes.len() == limit || page["next"].is_null(), "{page}");
        entries.extend(changes.iter().cloned());
        let Some(next) = page["next"].as_str() else { return entries };
        after.clear();
        let _ = write!(after, "&after={next}");
    }
}

/// Version, type and status of each entry, newest first.
#[track_caller]
fn steps(service: &Http, id: &str) -> Vec<(u64, String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let step =
        |entry: &Value| (entry["version"].as_u64().expect("a version"), text(&entry["type"]), text(&entry["status"]));
    all(service, id, 200).iter().map(step).collect()
}

/// The history of the account has these entries: version, type and status, newest first.
#[track_caller]
pub(crate) fn assert_history(service: &Http, id: &str, expected: &[(u64, &str, &str)]) {
    let steps = steps(service, id);
    let steps: Vec<_> =
        steps.iter().map(|(version, step, status)| (*version, step.as_str(), status.as_str())).collect();
    assert_eq!(steps, expected);
}

/// The account has one entry for each version.
#[track_caller]
fn assert_complete(service: &Http, id: &str) {
    let version = service.get(&account(id)).expect(200)["version"].as_u64().expect("a version");
    let versions: Vec<_> = steps(service, id).into_iter().map(|(version, ..)| version).collect();
    assert!(versions.iter().copied().eq((1..=version).rev()), "{versions:?}");
}

#[test]
fn each_change_is_an_entry_newest_first() {
    let clock = Clock::fixed(START_MICROS);
    let service = TestService::start_with(clock.clone(), None);
    let id = service.new_id();
    let created =
        r#"{"version":1,"type":"created","fields":[],"status":"ACTIVE","at":"2025-11-25T10:30:00Z","caller":null}"#;
    assert_eq!(service.get(&history(&id)).raw, format!(r#"{{"changes":[{created}],"next":null}}"#));
    for change in [
        json!({"beholder_name": "Jane Doe"}),
        // The name is the same.
        json!({"beholder_name": "Jane Doe", "country_code": "DE"}),
        json!({"status": "BLOCKED"}),
        json!({"beholder_name": "John Doe", "country_code": "US", "status": "ACTIVE"}),
        json!({"beholder_name": "Jane Doe", "status": "DELETED"}),
    ] {
        clock.advance_micros(1_000_000);
        service.patch(&id, &change).expect(200);
    }
    let entry = |version: u64, change: &str, fields: Value, status: &str, second: u64| {
        let at = format!("2025-11-25T10:30:0{second}Z");
        json!({"version": version, "type": change, "fields": fields, "status": status, "at": at, "caller": null})
    };
    let entries = [
        entry(6, "deleted", json!(["beholder_name"]), "DELETED", 5),
        entry(5, "status_changed", json!(["beholder_name", "country_code"]), "ACTIVE", 4),
        entry(4, "status_changed", json!([]), "BLOCKED", 3),
        entry(3, "updated", json!(["country_code"]), "ACTIVE", 2),
        entry(2, "updated", json!(["beholder_name"]), "ACTIVE", 1),
        serde_json::from_str(created).unwrap(),
    ];
    for limit in [1, 5, 6, 200] {
        assert_eq!(all(&service, &id, limit), entries);
    }
    let service = service.restart();
    assert_eq!(all(&service, &id, 200), entries);
}

#[test]
fn what_changes_nothing_is_no_entry() {
    let service = TestService::start();
    let id = service.new_id();
    let block = r#"{"status":"BLOCKED"}"#;
    for _ in 0..2 {
        keyed(&service, "PATCH", &account(&id), "block", block).expect(200);
        service.patch(&id, &json!({"beholder_name": "John Doe", "status": "BLOCKED"})).expect(200);
        service.send_if_match("PATCH", &id, "\"1\"", &json!({"status": "ACTIVE"})).expect(412);
    }
    for _ in 0..2 {
        keyed(&service, "DELETE", &account(&id), "delete", "").expect(200);
        service.delete(&account(&id)).expect(409);
        service.patch(&id, &json!({"status": "ACTIVE"})).expect(409);
    }
    let expected = [(3, "deleted", "DELETED"), (2, "status_changed", "BLOCKED"), (1, "created", "ACTIVE")];
    assert_history(&service, &id, &expected);
}

#[test]
fn a_long_history_is_read_in_pages() {
    const CHANGES: usize = 450;
    let service = TestService::start();
    let (id, other) = (service.new_id(), service.new_id());
    service.patch(&other, &json!({"beholder_name": "Jane Doe"})).expect(200);
    for change in 0..CHANGES {
        service.patch(&id, &json!({"beholder_name": format!("Jane {change}")})).expect(200);
    }
    let first = service.get(&history(&id)).expect(200);
    assert_eq!(first["changes"].as_array().map(Vec::len), Some(50), "without a limit");
    let whole = all(&service, &id, 200);
    assert_eq!(whole.len(), CHANGES + 1);
    assert_complete(&service, &id);
    for limit in [7, 50, 150] {
        assert_eq!(all(&service, &id, limit), whole, "{limit}");
    }
    // A page that begins at a position stays the same when changes follow.
    let next = first["next"].as_str().expect("more");
    let second = format!("{}&after={next}", history(&id));
    let before = service.get(&second).raw;
    service.delete(&account(&id)).expect(200);
    assert_eq!(service.get(&second).raw, before);
    assert_eq!(all(&service, &id, 200)[1..], whole);
    assert_complete(&service, &other);
}

#[test]
fn a_history_that_cannot_be_asked_for_is_refused() {
    let service = TestService::start();
    let id = service.new_id();
    for (path, status, code, field) in [
        ("/account/history", 400, "missing_id", Some("id")),
        ("/account/history?id=x", 400, "invalid_id", Some("id")),
        (&*history(UNKNOWN_ID), 404, "account_not_found", None),
        (&format!("{}&after=2", history(UNKNOWN_ID)), 404, "account_not_found", None),
        (&format!("{}&limit=201", history(&id)), 400, "invalid_limit", Some("limit")),
        (&format!("{}&limit=0", history(&id)), 400, "invalid_limit", Some("limit")),
        (&format!("{}&after=", history(&id)), 400, "invalid_after", Some("after")),
        (&format!("{}&after=x", history(&id)), 400, "invalid_after", Some("after")),
        (&format!("{}&after=%2B2", history(&id)), 400, "invalid_after", Some("after")),
        (&format!("{}&after=4294967296", history(&id)), 400, "invalid_after", Some("after")),
    ] {
        let answer = service.get(path);
        assert_eq!((answer.status, answer.text("code")), (status, code), "{path}");
        assert_eq!(answer.body.get("field").and_then(Value::as_str), field, "{path}");
    }
    assert_eq!(service.post("/account/history", &json!({})).status, 405);
}

#[test]
fn an_account_has_an_entry_for_each_version_however_many_change_it_at_once() {
    const THREADS: usize = 8;
    const EACH: usize = 30;
    let service = TestService::start();
    let ids: Vec<_> = (0..3).map(|_| service.new_id()).collect();
    let another = service.is_on_postgres().then(|| service.start_another());
    at_once(THREADS, &service, |thread, http| {
        let other = another.as_ref().map_or(http, |another| another.http());
        for round in 0..EACH {
            let http = if round % 2 == 0 { http } else { other };
            // Two threads send each request, so one of the two is replayed.
            let pair = thread / 2;
            let status = if (pair + round) % 2 == 0 { "BLOCKED" } else { "ACTIVE" };
            let body = json!({"beholder_name": format!("Jane {pair} {round}"), "status": status}).to_string();
            keyed(http, "PATCH", &account(&ids[round % 3]), &format!("{pair}-{round}"), &body).expect(200);
            http.post("/account", &json!({"beholder_name": "John Doe", "country_code": "US"})).expect(201);
        }
    });
    for id in &ids {
        // Each of the requests has a name of its own, so each changes the account.
        assert_eq!(steps(&service, id).len(), THREADS / 2 * EACH / ids.len() + 1);
        assert_complete(&service, id);
    }
}
