//! `Idempotency-Key`: a request that is repeated is done once.

use std::collections::HashSet;

use account_events::AccountStatus::{Blocked, Deleted};
use clock::Clock;
use serde_json::json;
use test_harness::{Answer, Http, at_once, database_url, wait_until, with_postgres};

use crate::service::{START_MICROS, Settings, TestService, UNKNOWN_ID, card, changed, created, new_id};

/// `method path` with this key.
pub(crate) fn keyed(service: &Http, method: &str, path: &str, key: &str, body: &str) -> Answer {
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
    service.send(method, path, &headers, body.as_bytes().to_vec())
}

fn new_card(account_id: &str) -> String {
    json!({"country": "US", "account_id": account_id}).to_string()
}

/// Checks that `again` is `first` once more, in everything that its request determines.
#[track_caller]
pub(crate) fn assert_replay(first: &Answer, again: &Answer) {
    assert_eq!((again.status, &again.raw), (first.status, &first.raw));
    for name in ["content-type", "location", "etag", "account-version"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    assert_eq!((first.header("idempotent-replayed"), again.header("idempotent-replayed")), ("", "true"));
}

#[track_caller]
pub(crate) fn assert_reused(answer: &Answer) {
    let text = "the idempotency key belongs to another request";
    answer.expect_error(422, "idempotency_key_reused", text, Some("Idempotency-Key"));
}

/// The number of keys in the database, expired ones included.
fn stored_keys(service: &TestService) -> i64 {
    match service.postgres_url() {
        None => {
            let url = database_url(service.folder(), "card");
            let path = url.strip_prefix("sqlite:").expect("a file");
            let connection = rusqlite::Connection::open(path).expect("a database");
            connection.query_row("SELECT count(*) FROM idempotency_keys", [], |row| row.get(0)).expect("a number")
        }
        Some(url) => with_postgres(&url, async |client| {
            Ok(client.query_one("SELECT count(*) FROM card.idempotency_keys", &[]).await?.get(0))
        }),
    }
}

#[test]
fn both_writes_are_replayed_with_every_header_whatever_happened_since() {
    let service = TestService::start();
    let account = service.account();
    let body = new_card(&account);
    let made = keyed(&service, "POST", "/card", "create", &body);
    assert_eq!(made.status, 201, "{}", made.raw);
    let path = card(made.text("id"));
    assert_eq!(made.header("location"), path);
    let deleted = keyed(&service, "DELETE", &path, "delete", "");
    assert_eq!(deleted.status, 200, "{}", deleted.raw);
    let assert_replays = |service: &Http| {
        for key in ["create", "\"create\""] {
            assert_replay(&made, &keyed(service, "POST", "/card", key, &body));
        }
        let other_order = format!(r#"{{"card_type":"gold","account_id":"{account}","country":"US"}}"#);
        assert_replay(&made, &keyed(service, "POST", "/card", "create", &other_order));
        assert_replay(&deleted, &keyed(service, "DELETE", &path, "delete", ""));
        let headers = [("Idempotency-Key", "delete"), ("If-None-Match", "*")];
        assert_replay(&deleted, &service.send("DELETE", &path, &headers, Vec::new()));
    };
    assert_replays(&service);
    // The view and the database refuse a new card by now.
    service.tell(&[changed(&account, Deleted, 2)]);
    assert_replays(&service);
    keyed(&service, "POST", "/card", "new", &body).expect(403);
    let service = service.restart();
    assert_replays(&service);
    assert_eq!((stored_keys(&service), &service.get("/cards").body["total"]), (2, &json!(1)));
}

#[test]
fn a_key_of_another_request_is_422_and_changes_nothing() {
    let service = TestService::start();
    let (account, blocked) = (service.account(), service.account());
    service.tell(&[changed(&blocked, Blocked, 2)]);
    let first = keyed(&service, "POST", "/card", "k", &new_card(&account));
    // The view allows a card of the first, and refuses one of each other.
    for account in [&service.account(), &blocked, UNKNOWN_ID] {
        assert_reused(&keyed(&service, "POST", "/card", "k", &new_card(account)));
    }
    let path = card(first.text("id"));
    assert_reused(&keyed(&service, "DELETE", &path, "k", ""));
    let if_none_match = [("Idempotency-Key", "k"), ("If-None-Match", "*")];
    assert_reused(&service.send("DELETE", &path, &if_none_match, Vec::new()));
    keyed(&service, "POST", "/card", "k", "{}").expect(400);
    assert_replay(&first, &keyed(&service, "POST", "/card", "k", &new_card(&account)));
    assert_eq!(service.get(&path).raw, first.raw);
}

#[test]
fn a_key_that_is_none_is_400() {
    let service = TestService::start();
    let body = new_card(&service.account());
    let id = card(service.card("US", &service.account()).text("id"));
    for key in ["", "\"\"", "a b", "k\u{e9}", &"k".repeat(256)] {
        let quarantine = "/quarantine?partition=0&offset=0";
        for (method, path, body) in [("POST", "/card", &*body), ("DELETE", &id, ""), ("DELETE", quarantine, "")] {
            let answer = keyed(&service, method, path, key, body);
            assert_eq!((answer.status, answer.text("code")), (400, "invalid_idempotency_key"), "{key}");
            assert_eq!(answer.text("field"), "Idempotency-Key");
        }
    }
    assert_eq!(service.get("/cards").body["total"], 1);
}

#[test]
fn a_replay_is_answered_while_the_view_is_catching_up() {
    let service = TestService::start();
    let account = service.account();
    let first = keyed(&service, "POST", "/card", "k", &new_card(&account));
    service.switches.hold_feed(true);
    let service = service.restart_held();
    service.post_card("US", &account).expect(503);
    assert_replay(&first, &keyed(&service, "POST", "/card", "k", &new_card(&account)));
    assert_reused(&keyed(&service, "POST", "/card", "k", &new_card(UNKNOWN_ID)));
    keyed(&service, "POST", "/card", "new", &new_card(&account)).expect(503);
    service.switches.hold_feed(false);
    service.wait_until_ready();
    keyed(&service, "POST", "/card", "new", &new_card(&account)).expect(201);
}

#[test]
fn a_refusal_frees_the_key() {
    let service = TestService::start();
    let (account, late) = (service.account(), new_id());
    keyed(&service, "POST", "/card", "k", &new_card(&late)).expect(404);
    keyed(&service, "DELETE", &card(UNKNOWN_ID), "k", "").expect(404);
    let made = service.card("US", &account);
    let path = card(made.text("id"));
    service.delete(&path).expect(200);
    keyed(&service, "DELETE", &path, "k", "").expect(409);
    assert_eq!(stored_keys(&service), 0);
    service.tell(&[created(&late)]);
    let first = keyed(&service, "POST", "/card", "k", &new_card(&late));
    assert_eq!(first.status, 201, "{}", first.raw);
    assert_replay(&first, &keyed(&service, "POST", "/card", "k", &new_card(&late)));
}

#[test]
fn many_at_once_with_one_key_are_one_card() {
    let service = TestService::start();
    let body = new_card(&service.account());
    // On SQLite one instance has the file.
    let other = service.is_on_postgres().then(|| service.start_beside());
    let other = other.as_ref().map_or(&*service, |(_, other)| other.http());
    wait_until("both are ready", || (other.get("/readyz").status == 200).then_some(()));
    let addresses = [service.address(), other.address()];
    let answers =
        at_once(50, &service, |thread, _| keyed(&Http::new(addresses[thread % 2]), "POST", "/card", "k", &body));
    let (first, again): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.header("idempotent-replayed").is_empty());
    assert_eq!((first.len(), again.len()), (1, 49));
    again.iter().for_each(|again| assert_replay(first[0], again));
    assert_eq!((stored_keys(&service), &service.get("/cards").body["total"]), (1, &json!(1)));
}

#[test]
fn overlapping_batches_of_two_instances_never_deadlock() {
    const KEYS: usize = 40;
    let service = TestService::start();
    let accounts = [service.account(), service.account(), service.account()];
    let other = service.is_on_postgres().then(|| service.start_beside());
    let other = other.as_ref().map_or(&*service, |(_, other)| other.http());
    wait_until("both are ready", || (other.get("/readyz").status == 200).then_some(()));
    let addresses = [service.address(), other.address()];
    let ids = at_once(16, &service, |thread, _| {
        let http = Http::new(addresses[thread % 2]);
        // Each thread has an order of its own.
        let key = |place: usize| (place * [1, 3, 7, 9][thread / 2 % 4] + thread * 11) % KEYS;
        let write = |key: usize| {
            let body = new_card(&accounts[key % accounts.len()]);
            let made = keyed(&http, "POST", "/card", &format!("create-{key}"), &body).expect(201);
            let id = made["id"].as_str().expect("an id").to_owned();
            keyed(&http, "DELETE", &card(&id), &format!("delete-{key}"), "").expect(200);
            id
        };
        (0..KEYS).map(key).map(write).collect::<HashSet<_>>()
    });
    assert!(ids.iter().all(|of_thread| *of_thread == ids[0] && of_thread.len() == KEYS));
    assert_eq!((stored_keys(&service), &service.get("/cards").body["total"]), (2 * KEYS as i64, &json!(KEYS)));
}

#[test]
fn an_expired_key_counts_as_absent_and_is_removed() {
    const DAY: i64 = 24 * 3_600_000_000;
    let clock = Clock::fixed(START_MICROS);
    let service = TestService::start_with(Settings { clock: clock.clone(), ..Settings::default() });
    let (body, other) = (new_card(&service.account()), new_card(&service.account()));
    let first = keyed(&service, "POST", "/card", "k", &body);
    clock.advance_micros(DAY - 1);
    assert_replay(&first, &keyed(&service, "POST", "/card", "k", &body));
    (0..20).for_each(|key| drop(keyed(&service, "POST", "/card", &key.to_string(), &body).expect(201)));
    clock.advance_micros(1);
    let second = keyed(&service, "POST", "/card", "k", &other);
    assert_eq!((second.status, second.header("idempotent-replayed")), (201, ""));
    clock.advance_micros(DAY - 1);
    wait_until("the twenty expired keys are removed", || (stored_keys(&service) == 1).then_some(()));
    assert_reused(&keyed(&service, "POST", "/card", "k", &body));
}
