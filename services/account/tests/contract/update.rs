//! `PUT /account?id=` and `PATCH /account?id=`: the same.

use clock::Clock;
use serde_json::{Value, json};

use crate::service::{START_MICROS, TestService, account, assert_same_account, written};

const METHODS: [&str; 2] = ["PUT", "PATCH"];

#[test]
fn any_of_the_three_fields_is_changed_and_the_others_stay() {
    for method in METHODS {
        let clock = Clock::fixed(START_MICROS);
        let service = TestService::start_with(clock.clone(), None);
        let created = service.create("John Doe", "US");
        let path = account(created.text("id"));
        let changes = [
            json!({"beholder_name": "  Jane Doe "}),
            json!({"country_code": "DE"}),
            json!({"status": "BLOCKED"}),
            json!({"status": "ACTIVE", "beholder_name": "Jo", "country_code": "FR"}),
            json!({"beholder_name": "Joe", "country_code": null, "status": null}),
        ];
        let after = [
            ("Jane Doe", "US", "ACTIVE", "2025-11-25T10:30:01Z"),
            ("Jane Doe", "DE", "ACTIVE", "2025-11-25T10:30:02Z"),
            ("Jane Doe", "DE", "BLOCKED", "2025-11-25T10:30:03Z"),
            ("Jo", "FR", "ACTIVE", "2025-11-25T10:30:04Z"),
            ("Joe", "FR", "ACTIVE", "2025-11-25T10:30:05Z"),
        ];
        for (version, (change, (name, country, status, updated_at))) in (2..).zip(changes.iter().zip(after)) {
            clock.advance_micros(1_000_000);
            let answer = service.send_json(method, &path, change);
            let expected = json!({
                "id": created.body["id"], "account_number": created.body["account_number"], "beholder_name": name,
                "country_code": country, "status": status, "version": version,
                "created_at": "2025-11-25T10:30:00Z", "updated_at": updated_at,
            });
            assert_eq!((answer.status, &answer.raw), (200, &written(&expected)), "{method} {change}");
            assert_eq!(answer.header("etag"), format!("\"{version}\""));
            assert_eq!(answer.header("content-type"), "application/json");
            let read = service.get(&path);
            assert_eq!((&read.raw, read.header("etag")), (&answer.raw, answer.header("etag")));
        }
    }
}

#[test]
fn an_update_to_what_is_there_changes_nothing_and_is_no_event() {
    let clock = Clock::fixed(START_MICROS);
    let service = TestService::start_with(clock.clone(), None);
    let created = service.create("John Doe", "US");
    for method in METHODS {
        for same in [
            json!({"status": "ACTIVE"}),
            json!({"beholder_name": " John Doe "}),
            json!({"beholder_name": "John Doe", "country_code": "US", "status": "ACTIVE"}),
        ] {
            clock.advance_micros(1_000_000);
            let answer = service.send_json(method, created.header("location"), &same);
            assert_eq!((answer.status, &answer.raw, answer.header("etag")), (200, &created.raw, "\"1\""));
        }
    }
    assert_eq!(service.stop_and_read_log().len(), 1, "the creation, and nothing else");
}

#[test]
fn an_account_is_blocked_and_set_free_again() {
    let service = TestService::start();
    let id = service.new_id();
    for (version, status) in (2..10).zip(["BLOCKED", "ACTIVE"].into_iter().cycle()) {
        let body = service.patch(&id, &json!({"status": status})).expect(200);
        assert_eq!((&body["status"], &body["version"]), (&Value::from(status), &Value::from(version)));
    }
}

#[test]
fn the_status_deleted_is_an_end_like_delete() {
    for method in METHODS {
        let service = TestService::start();
        let created = service.create("John Doe", "US");
        let path = created.header("location");
        let answer = service.send_json(method, path, &json!({"status": "DELETED"}));
        assert_eq!((answer.status, answer.header("etag")), (200, "\"2\""));
        assert_eq!((answer.text("status"), &answer.body["version"]), ("DELETED", &json!(2)));
        assert_same_account(&created.body, &answer.body);
        service.delete(path).expect_error(409, "account_already_deleted", "account is already deleted", None);
        let again = service.send_json(method, path, &json!({"status": "DELETED"}));
        again.expect_error(409, "account_deleted", "cannot update deleted account", None);
    }
}

#[test]
fn a_deleted_account_is_never_changed_again() {
    let service = TestService::start();
    let id = service.deleted_id();
    let deleted = service.get(&account(&id));
    for method in METHODS {
        for change in [
            json!({"status": "ACTIVE"}),
            json!({"status": "BLOCKED"}),
            json!({"status": "DELETED"}),
            json!({"beholder_name": "Jane Doe"}),
            json!({"beholder_name": "John Doe"}),
            json!({"country_code": "DE"}),
        ] {
            let answer = service.send_json(method, &account(&id), &change);
            answer.expect_error(409, "account_deleted", "cannot update deleted account", None);
        }
    }
    assert_eq!(service.get(&account(&id)).raw, deleted.raw);
    assert_eq!(service.stop_and_read_log().len(), 2);
}

#[test]
fn a_field_that_will_not_do_is_named_and_nothing_is_changed() {
    let service = TestService::start();
    let created = service.create("John Doe", "US");
    let long_name = "beholder_name must have at most 200 characters";
    let bad_name =
        "beholder_name must not have control characters, bidirectional controls or noncharacters: it has U+0007";
    let bad_country = "country_code must be an ISO 3166-1 alpha-2 code in upper case, such as US";
    let bad_status = "status must be ACTIVE, BLOCKED or DELETED";
    let cases = [
        (json!({"beholder_name": ""}), "invalid_beholder_name", "beholder_name must not be empty"),
        (json!({"beholder_name": " \n"}), "invalid_beholder_name", "beholder_name must not be empty"),
        (json!({"beholder_name": "x".repeat(201)}), "invalid_beholder_name", long_name),
        (json!({"beholder_name": "John\u{7}Doe"}), "invalid_beholder_name", bad_name),
        (json!({"country_code": ""}), "invalid_country_code", bad_country),
        (json!({"country_code": "us"}), "invalid_country_code", bad_country),
        (json!({"country_code": "XX", "beholder_name": "Jane"}), "invalid_country_code", bad_country),
        (json!({"status": ""}), "invalid_status", bad_status),
        (json!({"status": "active"}), "invalid_status", bad_status),
        (json!({"status": "CLOSED", "beholder_name": "Jane"}), "invalid_status", bad_status),
        (json!({"status": " ACTIVE"}), "invalid_status", bad_status),
    ];
    for method in METHODS {
        for (body, code, text) in &cases {
            let field = code.strip_prefix("invalid_");
            service.send_json(method, created.header("location"), body).expect_error(400, code, text, field);
        }
    }
    assert_eq!(service.get(created.header("location")).raw, created.raw);
}

#[test]
fn an_update_of_nothing_is_refused() {
    let service = TestService::start();
    let created = service.create("John Doe", "US");
    let text = "an update needs at least one of beholder_name, country_code and status";
    for method in METHODS {
        for body in [json!({}), json!({"beholder_name": null, "country_code": null, "status": null})] {
            let answer = service.send_json(method, created.header("location"), &body);
            answer.expect_error(400, "nothing_to_update", text, None);
        }
    }
}

#[test]
fn nobody_changes_what_the_service_decides() {
    let service = TestService::start();
    let created = service.create("John Doe", "US");
    for method in METHODS {
        for field in ["id", "account_number", "version", "created_at", "updated_at", "Status"] {
            // The name stays as it is, so the version does too.
            let mut body = json!({"beholder_name": "John Doe"});
            body[field] = json!("1");
            service.send_json(method, created.header("location"), &body).expect(200);
            let answer = service.send_json(method, created.header("location"), &json!({field: "1"}));
            let text = "an update needs at least one of beholder_name, country_code and status";
            answer.expect_error(400, "nothing_to_update", text, None);
        }
    }
    assert_eq!(service.get(created.header("location")).raw, created.raw);
}
