//! `GET /card/history?id=`: what happened to a card.

use account_events::AccountStatus::Deleted;
use clock::Clock;
use serde_json::{Value, json};
use test_harness::{Http, at_once};

use crate::idempotency::keyed;
use crate::service::{START_MICROS, Settings, TestService, UNKNOWN_ID, by_account, card, changed};

/// `/card/history?id=`
fn history(id: &str) -> String {
    format!("/card/history?id={id}")
}

/// The reason of each card's deletion; null without a deletion. A history has nothing else but the creation.
fn reasons(service: &Http, ids: &[String]) -> Vec<Value> {
    let reason = |id: &String| {
        let mut history = service.get(&history(id)).expect(200);
        let changes = history["changes"].as_array_mut().expect("a list");
        assert_eq!(changes.pop().expect("a creation")["type"], "created");
        let deletion = changes.pop().unwrap_or_default();
        assert!(changes.is_empty() && (deletion.is_null() || deletion["type"] == "deleted"), "{deletion} {changes:?}");
        deletion["reason"].clone()
    };
    ids.iter().map(reason).collect()
}

#[test]
fn a_creation_and_a_deletion_are_entries_newest_first() {
    let clock = Clock::fixed(START_MICROS);
    let service = TestService::start_with(Settings { clock: clock.clone(), ..Settings::default() });
    let account = service.account();
    let ids = [(); 2].map(|()| service.card("US", &account).text("id").to_owned());
    let created = r#"{"type":"created","at":"2025-11-25T10:30:00Z","caller":null}"#;
    assert_eq!(service.get(&history(&ids[0])).raw, format!(r#"{{"changes":[{created}]}}"#));
    clock.advance_micros(1_500_000);
    service.delete(&card(&ids[0])).expect(200);
    clock.advance_micros(1_000_000);
    service.tell(&[changed(&account, Deleted, 2)]);
    service.wait_until_all_deleted(&by_account(&account));
    let entries = |at: &str, reason: &str| {
        format!(r#"{{"changes":[{{"type":"deleted","at":"{at}","caller":null,"reason":"{reason}"}},{created}]}}"#)
    };
    let expected =
        [entries("2025-11-25T10:30:01.5Z", "requested"), entries("2025-11-25T10:30:02.5Z", "account_deleted")];
    let both = |service: &Http| [0, 1].map(|card| service.get(&history(&ids[card])).raw);
    assert_eq!(both(&service), expected);
    let service = service.restart();
    assert_eq!(both(&service), expected);
}

#[test]
fn what_changes_nothing_is_no_entry() {
    let service = TestService::start();
    let account = service.account();
    let id = service.card("US", &account).text("id").to_owned();
    for _ in 0..2 {
        keyed(&service, "DELETE", &card(&id), "delete", "").expect(200);
        service.delete(&card(&id)).expect(409);
    }
    service.tell(&[changed(&account, Deleted, 2), changed(&account, Deleted, 3)]);
    assert_eq!(reasons(&service, &[id]), ["requested"]);
}

#[test]
fn a_history_that_cannot_be_asked_for_is_refused() {
    let service = TestService::start();
    let missing = "Missing required query parameter: id";
    service.get("/card/history").expect_error(400, "missing_id", missing, Some("id"));
    assert_eq!(service.get("/card/history?id=x").text("code"), "invalid_id");
    service.get(&history(UNKNOWN_ID)).expect_error(404, "card_not_found", "card not found", None);
    assert_eq!(service.post("/card/history", &json!({})).status, 405);
}

#[test]
fn each_deleted_card_has_one_reason_however_it_was_deleted() {
    const THREADS: usize = 4;
    const EACH: usize = 40;
    let service = TestService::start();
    let accounts: Vec<_> = (0..THREADS).map(|_| service.account()).collect();
    let cards = at_once(THREADS, &service, |thread, http| {
        let body = json!({"country": "US", "account_id": accounts[thread]});
        let create = |_| http.post("/card", &body).expect(201)["id"].as_str().expect("an id").to_owned();
        (0..EACH).map(create).collect::<Vec<_>>()
    });
    // Requests delete cards while their accounts are closed.
    service.publish(&accounts[1..].iter().map(|account| changed(account, Deleted, 2)).collect::<Vec<_>>());
    let requested = at_once(THREADS, &service, |thread, http| {
        let delete = |id: &String| match http.delete(&card(id)).status {
            200 => json!("requested"),
            status => {
                assert_eq!(status, 409);
                json!("account_deleted")
            }
        };
        cards[thread][..EACH / 2].iter().map(delete).collect::<Vec<_>>()
    });
    for thread in 0..THREADS {
        let (first, second) = cards[thread].split_at(EACH / 2);
        assert_eq!(reasons(&service, first), requested[thread]);
        if thread > 0 {
            service.wait_until_all_deleted(&by_account(&accounts[thread]));
        }
        let expected = if thread > 0 { json!("account_deleted") } else { Value::Null };
        assert!(reasons(&service, second).iter().all(|reason| *reason == expected), "{thread}");
    }
}
