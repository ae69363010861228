//! What the log has of each change: the records of docs/api.md, byte for byte.

use std::time::{Duration, Instant};

use clock::Clock;
use event_log::Record;
use serde_json::json;

use crate::service::{START_MICROS, TestService, account};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The record that docs/api.md describes.
fn record(id: &str, kind: &str, status: &str, version: u32, time: &str, traceparent: &str) -> Record {
    let ce_id = format!("{id}:{version}");
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", &ce_id),
        ("ce_source", "/account-service"),
        ("ce_type", kind),
        ("ce_time", time),
        ("ce_subject", id),
        ("ce_sequence", &version.to_string()),
        ("traceparent", traceparent),
    ];
    Record {
        key: Some(id.into()),
        value: Some(format!(r#"{{"type":"{kind}","account_id":"{id}","status":"{status}"}}"#).into()),
        headers: headers.into_iter().collect(),
    }
}

#[test]
fn a_creation_and_each_change_of_status_are_one_event_each() {
    let clock = Clock::fixed(START_MICROS);
    let service = TestService::start_with(clock.clone(), None);
    let send = |method: &str, path: &str, trace: &str, body: &str| {
        let answer = service.send(method, path, &[("traceparent", trace)], body.into());
        clock.advance_micros(1_000_001);
        answer
    };
    let trace = |n| format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333{n}-01");
    let created = send("POST", "/account", &trace(1), r#"{"beholder_name":"John Doe","country_code":"US"}"#);
    let path = created.header("location");
    // Not a change of status: raises the version and is no event.
    send("PATCH", path, &trace(2), r#"{"beholder_name":"Jane Doe"}"#).expect(200);
    send("PUT", path, &trace(3), r#"{"status":"BLOCKED"}"#).expect(200);
    send("PATCH", path, &trace(4), r#"{"country_code":"DE","status":"BLOCKED"}"#).expect(200);
    send("PATCH", path, &trace(5), r#"{"country_code":"FR","status":"ACTIVE"}"#).expect(200);
    send("DELETE", path, &trace(6), "").expect(200);
    let id = created.text("id");
    let read = service.get(path);
    assert_eq!((read.header("etag"), read.text("updated_at")), ("\"6\"", "2025-11-25T10:30:05.000005Z"));

    let log = service.log_of(4);
    let changed = "account.status_changed";
    let expected = [
        record(id, "account.created", "ACTIVE", 1, "2025-11-25T10:30:00Z", &trace(1)),
        record(id, changed, "BLOCKED", 3, "2025-11-25T10:30:02.000002Z", &trace(3)),
        record(id, changed, "ACTIVE", 5, "2025-11-25T10:30:04.000004Z", &trace(5)),
        record(id, changed, "DELETED", 6, "2025-11-25T10:30:05.000005Z", &trace(6)),
    ];
    assert!(log.iter().map(|placed| &placed.record).eq(&expected), "{log:#?}");
    let partition = event_log::partition_of_key(id.as_bytes(), 3);
    assert!(log.iter().all(|placed| placed.partition == partition), "one account stays in one partition");
    assert_eq!(service.stop_and_read_log(), log, "and nothing comes after");
}

#[test]
fn deletion_by_status_is_the_same_event_as_deletion() {
    let service = TestService::start_with(Clock::fixed(START_MICROS), None);
    let id = service.new_id();
    let body = br#"{"status":"DELETED"}"#.to_vec();
    service.send("PATCH", &account(&id), &[("traceparent", TRACE)], body).expect(200);
    let expected = record(&id, "account.status_changed", "DELETED", 2, "2025-11-25T10:30:00Z", TRACE);
    assert_eq!(service.log_of(2)[1].record, expected);
}

#[test]
fn a_request_without_a_valid_traceparent_starts_a_trace() {
    let service = TestService::start();
    let body = br#"{"beholder_name":"John Doe","country_code":"US"}"#;
    service.send("POST", "/account", &[], body.to_vec()).expect(201);
    service.send("POST", "/account", &[("traceparent", "garbage")], body.to_vec()).expect(201);
    let mut traces: Vec<_> = service
        .log_of(2)
        .into_iter()
        .map(|placed| String::from_utf8(placed.record.headers.get("traceparent").unwrap().to_vec()).unwrap())
        .collect();
    assert!(traces.iter().all(|trace| account_events::TraceParent::parse(trace).is_some()), "{traces:?}");
    traces.dedup_by_key(|trace| trace[3..35].to_owned());
    assert_eq!(traces.len(), 2, "a trace each");
}

#[test]
fn what_is_refused_is_no_event() {
    let service = TestService::start();
    let id = service.new_id();
    service.post("/account", &json!({"beholder_name": "J"})).expect(400);
    service.patch(&id, &json!({"status": "gone"})).expect(400);
    service.send_if_match("DELETE", &id, "\"7\"", &json!(null)).expect(412);
    let deleted = service.deleted_id();
    service.patch(&deleted, &json!({"status": "ACTIVE"})).expect(409);
    service.delete(&account(&deleted)).expect(409);
    assert_eq!(service.stop_and_read_log().len(), 3);
}

#[test]
fn an_account_is_told_of_at_once() {
    // No batch timer, as the seed's client has one, and no poll: either would make each of them wait for a second.
    let service = TestService::start();
    let told = |count| {
        let started = Instant::now();
        service.new_id();
        service.log_of(count);
        started.elapsed()
    };
    let mut waits: Vec<_> = (1..=9).map(told).collect();
    waits.sort();
    assert!(waits[4] < Duration::from_millis(500), "{waits:?}");
}
