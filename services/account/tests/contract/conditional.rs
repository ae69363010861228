//! `If-Match` and `If-None-Match`: a request on the condition of a version.

use serde_json::{Value, json};

use crate::service::{TestService, UNKNOWN_ID, account};

#[test]
fn a_condition_that_names_the_version_lets_the_change_through() {
    let service = TestService::start();
    let id = service.new_id();
    let matching = ["\"1\"", "*", "\"9\", \"3\"", "W/\"4\", \"4\"", "5", " \"6\" ", "7, 8", "\"1\",,\"8\""];
    for ((version, condition), method) in (1..).zip(matching).zip(["PUT", "PATCH"].into_iter().cycle()) {
        let change = json!({"beholder_name": format!("Jane {version}")});
        let answer = service.send_if_match(method, &id, condition, &change);
        assert_eq!((answer.status, &answer.body["version"]), (200, &json!(version + 1)), "{condition}");
    }
    let etag = service.get(&account(&id)).header("etag").to_owned();
    service.send_if_match("DELETE", &id, &etag, &Value::Null).expect(200);
}

#[test]
fn a_condition_that_does_not_is_412_and_changes_nothing() {
    let service = TestService::start();
    let created = service.create("John Doe", "US");
    let id = created.text("id");
    let others = [
        "\"2\"",
        "\"0\"",
        "W/\"1\"",
        "\"01\"",
        "\"1",
        "\"1\"x",
        "2",
        "\"2\", \"3\"",
        "abc",
        "",
        "\"\"",
        "\"1,\"",
        "-1",
    ];
    for condition in others {
        for (method, body) in [
            ("PUT", json!({"status": "BLOCKED"})),
            ("PATCH", json!({"beholder_name": "Jane Doe"})),
            // What would change nothing is still conditional.
            ("PATCH", json!({"beholder_name": "John Doe"})),
            ("DELETE", Value::Null),
        ] {
            let answer = service.send_if_match(method, id, condition, &body);
            let text = "the account has version 1, which If-Match does not name";
            answer.expect_error(412, "version_mismatch", text, None);
        }
    }
    assert_eq!(service.get(&account(id)).raw, created.raw);
    assert_eq!(service.stop_and_read_log().len(), 1);
}

#[test]
fn a_version_is_used_up_by_one_change() {
    let service = TestService::start();
    let id = service.new_id();
    service.send_if_match("PATCH", &id, "\"1\"", &json!({"status": "BLOCKED"})).expect(200);
    let late = service.send_if_match("PATCH", &id, "\"1\"", &json!({"status": "ACTIVE"}));
    late.expect_error(412, "version_mismatch", "the account has version 2, which If-Match does not name", None);
    service.send_if_match("PATCH", &id, "\"2\"", &json!({"status": "ACTIVE"})).expect(200);
}

#[test]
fn several_lines_of_conditions_are_one_list() {
    let service = TestService::start();
    let id = service.new_id();
    let lines = [("If-Match", "\"7\""), ("If-Match", "\"1\"")];
    service.send("PATCH", &account(&id), &lines, br#"{"status":"BLOCKED"}"#.to_vec()).expect(200);
}

#[test]
fn what_is_wrong_in_itself_is_said_before_the_condition() {
    let service = TestService::start();
    let id = service.new_id();
    let answer = service.send_if_match("PATCH", &id, "\"9\"", &json!({"status": "gone"}));
    answer.expect_error(400, "invalid_status", "status must be ACTIVE, BLOCKED or DELETED", Some("status"));
    let deleted = service.deleted_id();
    let answer = service.send_if_match("PATCH", &deleted, "\"9\"", &json!({"status": "ACTIVE"}));
    answer.expect_error(409, "account_deleted", "cannot update deleted account", None);
    let answer = service.send_if_match("DELETE", &deleted, "\"9\"", &Value::Null);
    answer.expect_error(409, "account_already_deleted", "account is already deleted", None);
}

#[test]
fn a_version_that_the_caller_has_already_is_304() {
    let service = TestService::start();
    let created = service.create("John Doe", "US");
    let by_number = format!("/accounts/by-number?account_number={}", created.text("account_number"));
    for path in [created.header("location"), &by_number] {
        for (condition, status) in
            [("\"1\"", 304), ("W/\"1\"", 304), ("\"7\", \"1\"", 304), ("*", 304), ("\"2\"", 200), ("x", 200)]
        {
            let answer = service.send("GET", path, &[("If-None-Match", condition)], Vec::new());
            assert_eq!((answer.status, answer.header("etag")), (status, "\"1\""), "{condition}");
            assert_eq!(answer.raw.is_empty(), status == 304, "{condition}");
        }
    }
}

#[test]
fn a_change_unless_the_version_is_one_of_those_named() {
    let service = TestService::start();
    let created = service.create("John Doe", "US");
    let path = created.header("location");
    for method in ["PUT", "PATCH", "DELETE"] {
        for condition in ["\"1\"", "W/\"1\"", "*", "\"7\", 1"] {
            let body = br#"{"status":"BLOCKED"}"#.to_vec();
            let answer = service.send(method, path, &[("If-None-Match", condition)], body);
            let text = "the account has version 1, which If-None-Match names";
            answer.expect_error(412, "precondition_failed", text, None);
        }
    }
    let unknown = service.send("DELETE", &account(UNKNOWN_ID), &[("If-None-Match", "*")], Vec::new());
    unknown.expect_error(404, "account_not_found", "account not found", None);
    assert_eq!(service.get(path).raw, created.raw);
    service.send("DELETE", path, &[("If-None-Match", "\"2\"")], Vec::new()).expect(200);
    // A creation has nothing to match.
    let body = br#"{"beholder_name":"J","country_code":"US"}"#.to_vec();
    service.send("POST", "/account", &[("If-None-Match", "*")], body).expect(201);
}
