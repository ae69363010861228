//! `GET /account?id=`, and what every path with an `id` says to a wrong one.

use serde_json::json;

use crate::service::{TestService, UNKNOWN_ID, account};

const BAD_ID: &str = "id must be a UUID such as 550e8400-e29b-41d4-a716-446655440000";

#[test]
fn an_account_is_answered_as_it_was_made_with_its_etag() {
    let service = TestService::start();
    let created = service.create("John Doe", "US");
    let answer = service.get(created.header("location"));
    assert_eq!((answer.status, &answer.raw, answer.header("etag")), (200, &created.raw, "\"1\""));
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("location"), "");
}

#[test]
fn an_id_is_found_in_either_case_and_however_it_is_escaped() {
    let service = TestService::start();
    let created = service.create("John Doe", "US");
    let id = created.text("id");
    for query in [id.to_uppercase(), id.replace('-', "%2D"), format!("{id}&other=1")] {
        assert_eq!(service.get(&account(&query)).raw, created.raw, "{query}");
    }
}

/// What is asked of one account, with a body that would do.
const REQUESTS: [(&str, &str); 4] =
    [("GET", ""), ("PUT", r#"{"country_code":"DE"}"#), ("PATCH", r#"{"country_code":"DE"}"#), ("DELETE", "")];

#[test]
fn an_unknown_account_is_404() {
    let service = TestService::start();
    service.new_id();
    for (method, body) in REQUESTS {
        let answer = service.send(method, &account(UNKNOWN_ID), &[], body.into());
        answer.expect_error(404, "account_not_found", "account not found", None);
        let answer = service.send(method, &account(UNKNOWN_ID), &[("If-Match", "\"1\"")], body.into());
        answer.expect_error(404, "account_not_found", "account not found", None);
    }
}

#[test]
fn a_missing_id_is_asked_for() {
    let service = TestService::start();
    for (method, body) in REQUESTS {
        for path in ["/account", "/account?", "/account?id", "/account?id=", "/account?ID=x"] {
            let answer = service.send(method, path, &[], body.into());
            answer.expect_error(400, "missing_id", "Missing required query parameter: id", Some("id"));
        }
    }
}

#[test]
fn an_id_that_is_no_uuid_is_named() {
    let service = TestService::start();
    let long = "a".repeat(5_000);
    let ids = [
        "42",
        "%20",
        "550e8400e29b41d4a716446655440000",
        "%7B550e8400-e29b-41d4-a716-446655440000%7D",
        "550e8400-e29b-41d4-a716-44665544000g",
        "550e8400-e29b-41d4-a716-446655440000%20",
        "%20550e8400-e29b-41d4-a716-446655440000",
        "ACC-12345678",
        "%00",
        "%F0%9F%A6%80",
        "..%2F..%2Fetc%2Fpasswd",
        "1'%20OR%20'1'='1",
        &long,
    ];
    for (method, body) in REQUESTS {
        for id in ids {
            service.send(method, &account(id), &[], body.into()).expect_error(400, "invalid_id", BAD_ID, Some("id"));
        }
    }
}

#[test]
fn a_query_that_cannot_be_read_is_named() {
    let service = TestService::start();
    let id = service.new_id();
    for (query, code, text) in [
        (format!("{id}&id={id}"), "duplicate_parameter", "query parameter id is given more than once"),
        ("%zz".to_owned(), "invalid_query", "query parameter id holds a % that two hex digits do not follow"),
        ("%ff".to_owned(), "invalid_query", "query parameter id is not UTF-8"),
    ] {
        service.get(&account(&query)).expect_error(400, code, text, Some("id"));
        service.delete(&account(&query)).expect_error(400, code, text, Some("id"));
    }
    assert_eq!(service.patch(&id, &json!({"status": "BLOCKED"})).body["version"], 2, "nothing has happened to it");
}
