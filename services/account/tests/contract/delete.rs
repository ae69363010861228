//! `DELETE /account?id=`

use clock::Clock;
use serde_json::json;

use crate::service::{START_MICROS, TestService, assert_same_account};

#[test]
fn a_deleted_account_stays_and_says_so() {
    let clock = Clock::fixed(START_MICROS);
    let service = TestService::start_with(clock.clone(), None);
    let created = service.create("John Doe", "US");
    let path = created.header("location");
    clock.advance_micros(1_500_000);
    let answer = service.delete(path);
    assert_eq!((answer.status, &*answer.raw), (200, r#"{"message":"Account deleted successfully"}"#));
    assert_eq!(answer.header("content-type"), "application/json");

    let deleted = service.get(path);
    assert_eq!((deleted.status, deleted.text("status"), deleted.header("etag")), (200, "DELETED", "\"2\""));
    assert_eq!(deleted.text("updated_at"), "2025-11-25T10:30:01.5Z");
    assert_same_account(&created.body, &deleted.body);
    let by_number = format!("/accounts/by-number?account_number={}", created.text("account_number"));
    assert_eq!(service.get(&by_number).raw, deleted.raw);
    let list = service.list("");
    assert_eq!((&list["total"], &list["accounts"]), (&json!(1), &json!([deleted.body])));
}

#[test]
fn an_account_is_deleted_once() {
    let service = TestService::start();
    let created = service.create("John Doe", "US");
    let path = created.header("location");
    service.delete(path).expect(200);
    for _ in 0..2 {
        service.delete(path).expect_error(409, "account_already_deleted", "account is already deleted", None);
    }
    assert_eq!(service.get(path).body["version"], 2);
    assert_eq!(service.stop_and_read_log().len(), 2);
}

#[test]
fn a_blocked_account_can_be_deleted() {
    let service = TestService::start();
    let id = service.new_id();
    service.patch(&id, &json!({"status": "BLOCKED"})).expect(200);
    service.delete(&crate::service::account(&id)).expect(200);
    assert_eq!(service.list("?status=DELETED")["total"], 1);
}
