//! With authentication, history entries have the caller, and idempotency keys belong to the caller.

use clock::Clock;
use http_server::HttpConfig;
use serde_json::{Value, json};
use test_harness::{Http, at_once, callers};

use crate::idempotency::{assert_replay, keyed};
use crate::service::{TestService, account};

const JOHN: &str = r#"{"beholder_name":"John Doe","country_code":"US"}"#;

fn start() -> (TestService, Http, Http) {
    let authenticator = Some(callers(&["alice", "bob"]));
    let service = TestService::start_with_http(Clock::system(), HttpConfig { authenticator, ..HttpConfig::default() });
    let [alice, bob] = ["alice", "bob"].map(|name| service.of_caller(name));
    (service, alice, bob)
}

/// Type and caller of each history entry, newest first.
#[track_caller]
fn entries(http: &Http, id: &str) -> Value {
    let history = http.get(&format!("/account/history?id={id}")).expect(200);
    let entries = history["changes"].as_array().expect("a list").iter();
    entries.map(|entry| json!([entry["type"], entry["caller"]])).collect()
}

#[test]
fn each_history_entry_has_the_caller_of_its_change() {
    let (service, alice, bob) = start();
    // With and without a key, since a store writes the two in different ways.
    let unkeyed = alice.send_json("POST", "/account", &serde_json::from_str(JOHN).unwrap()).expect(201);
    let keyed = keyed(&alice, "POST", "/account", "k", JOHN).expect(201);
    let ids = [unkeyed, keyed].map(|created| created["id"].as_str().unwrap().to_owned());
    for id in &ids {
        bob.send_json("PATCH", &account(id), &json!({"status": "BLOCKED"})).expect(200);
        alice.send_json("PUT", &account(id), &json!({"country_code": "DE"})).expect(200);
        bob.post("/admin/republish", &json!({"accounts": [{"id": id, "above": 9, "delete": false}]})).expect(200);
        bob.delete(&account(id)).expect(200);
    }
    let expected = json!([
        ["deleted", "bob"],
        ["recovered", "bob"],
        ["updated", "alice"],
        ["status_changed", "bob"],
        ["created", "alice"]
    ]);
    ids.iter().for_each(|id| assert_eq!(entries(&alice, id), expected));
    let service = service.restart();
    ids.iter().for_each(|id| assert_eq!(entries(&service.of_caller("bob"), id), expected));
}

#[test]
fn callers_with_one_key_are_two_requests() {
    let (service, alice, bob) = start();
    let of_alice = keyed(&alice, "POST", "/account", "k", JOHN);
    let other = r#"{"beholder_name":"Jane Doe","country_code":"DE"}"#;
    let of_bob = keyed(&bob, "POST", "/account", "k", other);
    assert_eq!((of_alice.status, of_bob.status), (201, 201), "{} {}", of_alice.raw, of_bob.raw);
    assert_ne!(of_alice.text("id"), of_bob.text("id"));
    assert_replay(&of_alice, &keyed(&alice, "POST", "/account", "k", JOHN));
    assert_replay(&of_bob, &keyed(&bob, "POST", "/account", "k", other));
    keyed(&alice, "POST", "/account", "k", other).expect(422);
    // A refused change frees the key of its caller, and no other.
    keyed(&bob, "DELETE", &account(crate::service::UNKNOWN_ID), "k2", "").expect(404);
    keyed(&alice, "PATCH", &account(of_bob.text("id")), "k2", r#"{"status":"BLOCKED"}"#).expect(200);
    keyed(&bob, "DELETE", &account(crate::service::UNKNOWN_ID), "k2", "").expect(404);
    keyed(&bob, "DELETE", &account(of_bob.text("id")), "k2", "").expect(200);
    assert_eq!(alice.get("/accounts").expect(200)["total"], 2);
    drop(service);
}

#[test]
fn instances_never_deadlock_on_keys_of_several_callers() {
    const KEYS: usize = 30;
    let (service, ..) = start();
    let other = service.is_on_postgres().then(|| service.start_another());
    let instances: [&Http; 2] = [&service, other.as_ref().map_or(&service, |other| other.http())];
    at_once(12, &service, |thread, _| {
        let http = Http::new(instances[thread % 2].address());
        for place in 0..KEYS {
            let place = (place * [1, 7, 11][thread % 3] + thread) % KEYS;
            let caller = if (place + thread).is_multiple_of(2) { "alice" } else { "bob" };
            keyed(&http.of_caller(caller), "POST", "/account", &place.to_string(), JOHN).expect(201);
        }
    });
    assert_eq!(service.of_caller("alice").get("/accounts").expect(200)["total"], 2 * KEYS);
}
