//! `GET /account-view?account_id=`

use std::time::Duration;

use account_events::AccountStatus::{Blocked, Deleted};
use event_log::Record;
use serde_json::{Value, json};
use test_harness::{Http, wait_until};

use crate::service::{Settings, TestService, UNKNOWN_ID, changed, created, new_id};

fn path(account: &str) -> String {
    format!("/account-view?account_id={account}")
}

#[track_caller]
fn assert_known(service: &TestService, account: &str, status: &str, version: Value) {
    let viewed = wait_until("the view is known to be complete", || {
        let viewed = service.get(&path(account)).expect(200);
        viewed["age_seconds"].is_number().then_some(viewed)
    });
    let names: Vec<_> = viewed.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(names.len(), 5, "{viewed}");
    let expected = json!({"account_id": account, "status": status, "version": version});
    let given = json!({"account_id": viewed["account_id"], "status": viewed["status"], "version": viewed["version"]});
    assert_eq!(given, expected);
    assert!(viewed["lag"].is_u64() && viewed["age_seconds"].as_f64().expect("an age") < 30.0, "{viewed}");
}

#[test]
fn it_is_what_the_instance_knows() {
    let service = TestService::start();
    let account = service.account();
    assert_known(&service, &account, "ACTIVE", json!(1));
    let raw = service.get(&path(&account.to_uppercase())).raw;
    assert!(
        raw.starts_with(&format!(r#"{{"account_id":"{account}","status":"ACTIVE","version":1,"age_seconds":"#)),
        "{raw}"
    );
    service.tell(&[changed(&account, Blocked, 4)]);
    assert_known(&service, &account, "BLOCKED", json!(4));
    service.tell(&[changed(&account, Deleted, 5)]);
    assert_known(&service, &account, "DELETED", json!(5));
    let bare = new_id();
    let value = format!(r#"{{"account_id":"{bare}","status":"ACTIVE","type":"account.created"}}"#);
    service.tell(&[Record { value: Some(value.into()), ..Record::default() }]);
    assert_known(&service, &bare, "ACTIVE", Value::Null);
}

#[test]
fn an_id_is_required_and_an_unknown_account_is_404() {
    let service = TestService::start();
    for path in ["/account-view", "/account-view?account_id=", "/account-view?id=1"] {
        service.get(path).expect_error(400, "missing_account_id", "account ID is required", Some("account_id"));
    }
    let text = "account_id must be a UUID such as 550e8400-e29b-41d4-a716-446655440000";
    service.get(&path("42")).expect_error(400, "invalid_account_id", text, Some("account_id"));
    service.get(&path(UNKNOWN_ID)).expect_error(404, "account_not_found", "account not found", None);
    let version = [("Account-Version", "1")];
    let unknown = service.send("GET", &path(UNKNOWN_ID), &version, Vec::new());
    unknown.expect_error(503, "catching_up", "account view is catching up", None);
}

#[test]
fn it_can_be_waited_for() {
    let service = TestService::start();
    let account = new_id();
    let headers = [("Prefer", "wait=30"), ("Account-Version", "2")];
    let http = Http::new(service.address());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| http.send("GET", &path(&account), &headers, Vec::new()));
        wait_until("it waits", || (service.view()["waiting"] == 1).then_some(()));
        service.publish(&[created(&account), changed(&account, Blocked, 2)]);
        let answer = waiting.join().expect("no panic");
        assert_eq!((answer.status, answer.header("preference-applied")), (200, "wait=30"));
        assert_eq!((answer.text("status"), &answer.body["version"]), ("BLOCKED", &json!(2)));
    });
}

#[test]
fn a_view_that_catches_up_or_is_too_old_is_503() {
    let account = new_id();
    let view_max_age = Some(Duration::from_secs(2));
    let service = TestService::start_behind(Settings { view_max_age, ..Settings::default() }, |log, switches| {
        log.publish(&[created(&account)]);
        switches.hold_feed(true);
    });
    service.get(&path(&account)).expect_error(503, "catching_up", "account view is catching up", None);
    service.switches.hold_feed(false);
    wait_until("it has caught up", || (service.get(&path(&account)).status == 200).then_some(()));
    service.switches.set_away(true);
    let refused = wait_until("it is too old", || Some(service.get(&path(&account))).filter(|it| it.status != 200));
    refused.expect_error(503, "catching_up", "account view is catching up", None);
}
