//! With authentication, history entries have the caller, and idempotency keys belong to the caller.

use account_events::AccountStatus::Deleted;
use serde_json::{Value, json};
use test_harness::Http;

use crate::idempotency::{assert_replay, keyed};
use crate::service::{Settings, TestService, UNKNOWN_ID, card, changed};

fn start() -> (TestService, Http, Http) {
    let service = TestService::start_with(Settings { callers: &["alice", "bob"], ..Settings::default() });
    let [alice, bob] = ["alice", "bob"].map(|name| service.of_caller(name));
    (service, alice, bob)
}

fn new_card(account_id: &str, country: &str) -> String {
    json!({"country": country, "account_id": account_id}).to_string()
}

/// Type and caller of each history entry, newest first.
#[track_caller]
fn entries(http: &Http, id: &str) -> Value {
    let history = http.get(&format!("/card/history?id={id}")).expect(200);
    let entries = history["changes"].as_array().expect("a list").iter();
    entries.map(|entry| json!([entry["type"], entry["caller"]])).collect()
}

#[test]
fn each_history_entry_has_the_caller_and_a_closing_has_none() {
    let (service, alice, bob) = start();
    let account = service.account();
    // With and without a key, since a store writes the two in different ways.
    let unkeyed = alice.post("/card", &json!({"country": "US", "account_id": account})).expect(201);
    let with_key = keyed(&alice, "POST", "/card", "k", &new_card(&account, "US")).expect(201);
    let of_bob = bob.post("/card", &json!({"country": "US", "account_id": account})).expect(201);
    let [unkeyed, with_key, of_bob] = [unkeyed, with_key, of_bob].map(|card| card["id"].as_str().unwrap().to_owned());
    bob.delete(&card(&unkeyed)).expect(200);
    keyed(&alice, "DELETE", &card(&with_key), "d", "").expect(200);
    service.tell(&[changed(&account, Deleted, 2)]);
    test_harness::wait_until("the closing", || {
        bob.get(&card(&of_bob)).expect(200)["deleted"].as_bool().filter(|deleted| *deleted)
    });
    let expected = [
        (unkeyed, json!([["deleted", "bob"], ["created", "alice"]])),
        (with_key, json!([["deleted", "alice"], ["created", "alice"]])),
        (of_bob, json!([["deleted", null], ["created", "bob"]])),
    ];
    expected.iter().for_each(|(id, expected)| assert_eq!(entries(&alice, id), *expected));
}

#[test]
fn callers_with_one_key_are_two_requests() {
    let (service, alice, bob) = start();
    let account = service.account();
    let (us, de) = (new_card(&account, "US"), new_card(&account, "DE"));
    let of_alice = keyed(&alice, "POST", "/card", "k", &us);
    let of_bob = keyed(&bob, "POST", "/card", "k", &de);
    assert_eq!((of_alice.status, of_bob.status), (201, 201), "{} {}", of_alice.raw, of_bob.raw);
    assert_replay(&of_alice, &keyed(&alice, "POST", "/card", "k", &us));
    assert_replay(&of_bob, &keyed(&bob, "POST", "/card", "k", &de));
    keyed(&alice, "POST", "/card", "k", &de).expect(422);
    // A refused change frees the key of its caller, and no other.
    keyed(&bob, "DELETE", &card(UNKNOWN_ID), "k2", "").expect(404);
    keyed(&alice, "DELETE", &card(of_bob.text("id")), "k2", "").expect(200);
    keyed(&bob, "DELETE", &card(of_alice.text("id")), "k2", "").expect(200);
    // The look-up outside of the transaction, where the view refuses.
    service.tell(&[changed(&account, Deleted, 2)]);
    test_harness::wait_until("the view refuses", || {
        (keyed(&bob, "POST", "/card", "new", &us).status == 403).then_some(())
    });
    assert_replay(&of_alice, &keyed(&alice, "POST", "/card", "k", &us));
    assert_replay(&of_bob, &keyed(&bob, "POST", "/card", "k", &de));
    assert_eq!(bob.get("/cards").expect(200)["total"], 2);
}
