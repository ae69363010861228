//! While the log is away, reads and card creation continue with the view as it is, and `/readyz` shows it (ARCHITECTURE.md C5).

use std::time::Duration;

use account_events::AccountStatus::Deleted;
use serde_json::{Value, json};
use test_harness::wait_until;

use crate::service::{Settings, TestService, UNKNOWN_ID, by_account, changed, created, new_id};
use crate::switched_log::AWAY;

fn age(view: &Value) -> f64 {
    view["age_seconds"].as_f64().expect("an age")
}

#[test]
fn with_the_log_away_cards_are_made_and_read_on_and_the_age_shows() {
    let service = TestService::start();
    let account = service.account();
    let before = service.card("US", &account);
    service.switches.set_away(true);
    let view = wait_until("it shows", || Some(service.view()).filter(|view| view["failure"].is_string()));
    assert_eq!(view["failure"], AWAY);
    // More than the interval of the watch.
    wait_until("the view grows old", || (age(&service.view()) > age(&view) + 1.1).then_some(()));

    let card = service.card("US", &account);
    assert_eq!(service.get(card.header("location")).raw, card.raw);
    assert_eq!(service.get(&by_account(&account)).body["total"], 2);
    assert_eq!(service.get("/cards").body["total"], 2);
    service.delete(before.header("location")).expect(200);
    service.post_card("US", UNKNOWN_ID).expect(404);
    let ready = service.get("/readyz").expect(200);
    assert_eq!((&ready["status"], &ready["view"]["caught_up"]), (&json!("ready"), &json!(true)));

    // Events of the outage are applied after it.
    let new = new_id();
    service.publish(&[changed(&account, Deleted, 2), created(&new)]);
    service.card("US", &account);
    service.switches.set_away(false);
    wait_until("it is heard of", || (service.post_card("US", &account).status == 403).then_some(()));
    service.wait_until_all_deleted(&by_account(&account));
    wait_until("the new account is heard of", || (service.post_card("US", &new).status == 201).then_some(()));
    wait_until("it shows", || {
        let view = service.view();
        (view["failure"].is_null() && view["lag"] == 0 && age(&view) < 2.0).then_some(())
    });
    assert_eq!(service.view()["records"], 3, "nothing is read twice");
}

#[test]
fn with_a_bound_on_the_age_a_view_that_is_too_old_makes_no_cards() {
    let view_max_age = Some(Duration::from_secs(2));
    let service = TestService::start_with(Settings { view_max_age, ..Settings::default() });
    let account = service.account();
    wait_until("a card is made", || (service.post_card("US", &account).status == 201).then_some(()));
    service.switches.set_away(true);
    let refused = wait_until("the view is too old", || {
        let answer = service.post_card("US", &account);
        assert!([201, 503].contains(&answer.status), "{}", answer.raw);
        (answer.status == 503).then_some(answer)
    });
    refused.expect_error(503, "catching_up", "account view is catching up", None);
    assert_eq!(refused.header("retry-after"), "1");
    // Even now, no account that may be in the log is "not found".
    service.post_card("US", UNKNOWN_ID).expect(503);
    let ready = service.get("/readyz");
    assert_eq!((ready.status, ready.header("retry-after")), (503, "1"));
    let reason = ready.body["reasons"][0].as_str().unwrap();
    assert!(reason.starts_with("the account view is ") && reason.ends_with(" s old, and may be 2 s old"), "{reason}");
    service.get(&by_account(&account)).expect(200);
    service.get("/cards").expect(200);
    service.switches.set_away(false);
    wait_until("a card is made", || (service.post_card("US", &account).status == 201).then_some(()));
    service.wait_until_ready();
}
