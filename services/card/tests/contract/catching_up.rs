//! Until the view holds every account, no card is created and no account is "not found" (ARCHITECTURE.md C3).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use account_events::AccountStatus::Deleted;
use serde_json::{Value, json};
use test_harness::{Answer, wait_until};

use crate::service::{Settings, TestService, UNKNOWN_ID, changed, created, new_id};
use crate::switched_log::AWAY;

#[track_caller]
fn assert_catching_up(answer: &Answer) {
    answer.expect_error(503, "catching_up", "account view is catching up", None);
    assert_eq!(answer.header("retry-after"), "1");
}

#[test]
fn until_the_view_has_reached_the_end_a_card_is_503_and_never_404() {
    let accounts: Vec<_> = (0..20).map(|_| new_id()).collect();
    let records: Vec<_> = accounts.iter().map(|id| created(id)).collect();
    let service = TestService::start_behind(Settings::default(), |log, switches| {
        log.publish(&records);
        switches.hold_feed(true);
    });
    for account in accounts.iter().map(String::as_str).chain([UNKNOWN_ID]) {
        assert_catching_up(&service.post_card("US", account));
    }
    // Errors of the request itself do not depend on the view.
    service.post_card("nowhere", UNKNOWN_ID).expect(400);

    let ready = service.get("/readyz");
    assert_eq!((ready.status, ready.header("retry-after")), (503, "1"));
    assert_eq!((ready.text("status"), ready.text("code")), ("not_ready", "not_ready"));
    assert_eq!(ready.text("error"), "not ready: the account view is catching up");
    assert_eq!(ready.body["reasons"], json!(["the account view is catching up"]));
    assert_eq!((&ready.body["view"]["caught_up"], &ready.body["view"]["accounts"]), (&json!(false), &json!(0)));
    // The service is alive, and reads are answered.
    for path in ["/health", "/livez", "/cards"] {
        service.get(path).expect(200);
    }

    service.switches.hold_feed(false);
    wait_until("a card is made", || {
        let answer = service.post_card("US", &accounts[19]);
        assert!([201, 503].contains(&answer.status), "{}", answer.raw);
        (answer.status == 201).then_some(())
    });
    service.get("/readyz").expect(200);
    accounts.iter().for_each(|account| drop(service.card("US", account)));
    service.post_card("US", UNKNOWN_ID).expect(404);
}

#[test]
fn from_the_first_moment_on_nothing_in_the_log_is_not_found() {
    let accounts: Vec<_> = (0..20_000).map(|_| new_id()).collect();
    let records: Vec<_> = accounts.iter().map(|id| created(id)).collect();
    let deleted = changed(&accounts[0], Deleted, 2);
    let service = TestService::start_behind(Settings::default(), |log, _| {
        log.publish(&records);
        log.publish(&[deleted]);
    });
    let statuses = test_harness::at_once(4, &service, |thread, http| {
        let last = &accounts[accounts.len() - 1 - thread];
        let mut statuses = Vec::new();
        while !statuses.contains(&201) {
            statuses.push(http.post("/card", &json!({"country": "US", "account_id": last})).status);
        }
        statuses
    });
    assert!(statuses.concat().iter().all(|status| [201, 503].contains(status)), "{statuses:?}");
    let answer = service.post_card("US", &accounts[0]);
    answer.expect_error(403, "account_deleted", "cannot create card for deleted account", None);
    assert_eq!(service.view()["accounts"], 20_000);
}

#[test]
fn an_empty_log_is_a_view_that_has_everything() {
    let service = TestService::start();
    service.post_card("US", UNKNOWN_ID).expect(404);
    let view = service.view();
    assert_eq!((&view["caught_up"], &view["accounts"], &view["failure"]), (&json!(true), &json!(0), &Value::Null));
}

#[test]
fn a_log_that_is_away_from_the_start_keeps_it_catching_up() {
    let account = new_id();
    let service = TestService::start_behind(Settings::default(), |log, switches| {
        log.publish(&[created(&account)]);
        switches.set_away(true);
    });
    let view = wait_until("it has tried", || Some(service.view()).filter(|view| view["failure"].is_string()));
    assert_eq!(
        (&view["failure"], &view["caught_up"], &view["age_seconds"]),
        (&json!(AWAY), &json!(false), &json!(null))
    );
    for id in [&account, UNKNOWN_ID] {
        assert_catching_up(&service.post_card("US", id));
    }
    service.get("/readyz").expect(503);
    service.get("/cards").expect(200);
    service.switches.set_away(false);
    service.wait_until_ready();
    service.card("US", &account);
    // The feed and the watch notice independently that the log is back.
    wait_until("no failure shows", || service.view()["failure"].is_null().then_some(()));
}

#[test]
fn what_the_outbox_held_at_the_start_is_waited_for() {
    let published = Arc::<AtomicBool>::default();
    let settings = Settings { backlog_published: Some(Arc::clone(&published)), ..Settings::default() };
    let (early, late) = (new_id(), new_id());
    let service = TestService::start_behind(settings, |log, _| log.publish(&[created(&early)]));
    wait_until("the view holds all that the log has", || (service.view()["records"] == 1).then_some(()));
    for account in [&early, &late] {
        assert_catching_up(&service.post_card("US", account));
    }
    service.get("/readyz").expect(503);
    service.publish(&[created(&late)]);
    published.store(true, Ordering::SeqCst);
    service.wait_until_ready();
    service.card("US", &late);
    service.card("US", &early);
}

#[test]
fn a_restart_forgets_no_account() {
    let service = TestService::start();
    let (account, deleted) = (service.account(), service.account());
    service.card("US", &account);
    service.tell(&[changed(&deleted, Deleted, 2)]);
    // Both events precede the group's position, and the new view has them nevertheless (hole 3).
    let service = service.restart();
    service.card("US", &account);
    service.post_card("US", &deleted).expect(403);
    assert_eq!(service.view()["accounts"], 2);
}
