//! `Idempotency-Key`: a request that is repeated is done once.

use std::collections::HashSet;
use std::time::Duration;

use clock::Clock;
use postgres::DatabaseUrl;
use serde_json::{Value, json};
use test_harness::{Answer, Http, wait_until, with_postgres};

use crate::lineage::Backup;
use crate::service::{START_MICROS, TestService, account};

const JOHN: &str = r#"{"beholder_name":"John Doe","country_code":"US"}"#;

const REUSED: &str = "the idempotency key belongs to another request";

/// `method path` with this key.
pub(crate) fn keyed(service: &Http, method: &str, path: &str, key: &str, body: &str) -> Answer {
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
    service.send(method, path, &headers, body.as_bytes().to_vec())
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
fn assert_reused(answer: &Answer) {
    answer.expect_error(422, "idempotency_key_reused", REUSED, Some("Idempotency-Key"));
}

/// The number of keys in the database, expired ones included.
fn stored_keys(service: &TestService) -> i64 {
    match service.database() {
        DatabaseUrl::Sqlite(path) => {
            let connection = rusqlite::Connection::open(path).expect("a database");
            connection.query_row("SELECT count(*) FROM idempotency_keys", [], |row| row.get(0)).expect("a number")
        }
        DatabaseUrl::Postgres(url) => with_postgres(&url, async |client| {
            Ok(client.query_one("SELECT count(*) FROM account.idempotency_keys", &[]).await?.get(0))
        }),
    }
}

#[test]
fn each_write_is_replayed_with_every_header_whatever_happened_since() {
    let service = TestService::start();
    let created = keyed(&service, "POST", "/account", "create", JOHN);
    assert_eq!(created.status, 201, "{}", created.raw);
    let path = account(created.text("id"));
    let block = r#"{"status":"BLOCKED"}"#;
    let writes = [
        ("POST", "/account", "create", JOHN),
        ("PATCH", &path, "rename", r#"{"beholder_name":"Jane Doe"}"#),
        ("PATCH", &path, "nothing", r#"{"beholder_name":"Jane Doe"}"#),
        ("PUT", &path, "block", block),
        ("DELETE", &path, "delete", ""),
    ];
    let mut first = vec![created];
    for (method, path, key, body) in &writes[1..] {
        let answer = keyed(&service, method, path, key, body);
        assert_eq!(answer.status, 200, "{}", answer.raw);
        first.push(answer);
    }
    assert_eq!(first[3].header("etag"), "\"3\"");
    // The account is deleted by now.
    let assert_replays = |service: &Http| {
        for ((method, path, key, body), first) in writes.iter().zip(&first) {
            assert_replay(first, &keyed(service, method, path, key, body));
            assert_replay(first, &keyed(service, method, path, &format!("\"{key}\""), body));
        }
    };
    assert_replays(&service);
    let service = service.restart();
    assert_replays(&service);
    assert_eq!((stored_keys(&service), &service.list("")["total"]), (5, &json!(1)));
    service.log_of(3);
}

#[test]
fn a_key_of_another_request_is_422_and_changes_nothing() {
    let service = TestService::start();
    let first = keyed(&service, "POST", "/account", "k", JOHN);
    let path = account(first.text("id"));
    for (method, path, body) in [
        ("POST", "/account", r#"{"beholder_name":"Jane Doe","country_code":"US"}"#),
        ("POST", "/account", r#"{"beholder_name":"John Doe","country_code":"DE"}"#),
        ("POST", "/account?x=1", JOHN),
        ("PATCH", &path, JOHN),
        ("PUT", &path, r#"{"status":"BLOCKED"}"#),
        ("DELETE", &path, ""),
    ] {
        assert_reused(&keyed(&service, method, path, "k", body));
    }
    // What is wrong with the request itself comes first.
    let invalid = keyed(&service, "POST", "/account", "k", r#"{"beholder_name":"John Doe"}"#);
    assert_eq!(invalid.text("code"), "missing_fields");
    assert_replay(&first, &keyed(&service, "POST", "/account", "k", JOHN));
    assert_eq!(service.get(&path).raw, first.raw);
    assert_eq!(service.list("")["total"], 1);
}

#[test]
fn a_key_that_is_none_is_400() {
    let service = TestService::start();
    let id = service.new_id();
    let (too_long, path) = ("k".repeat(256), account(&id));
    for key in ["", "\"\"", "a b", "a\tb", "k\u{e9}", &too_long] {
        for (method, path, body) in [("POST", "/account", JOHN), ("PATCH", &*path, JOHN), ("DELETE", &path, "")] {
            let answer = keyed(&service, method, path, key, body);
            assert_eq!((answer.status, answer.text("code")), (400, "invalid_idempotency_key"), "{key}");
            assert_eq!(answer.text("field"), "Idempotency-Key");
        }
    }
    let two = [("Content-Type", "application/json"), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")];
    let answer = service.send("POST", "/account", &two, JOHN.into());
    assert_eq!((answer.status, answer.text("code")), (400, "invalid_idempotency_key"));
    keyed(&service, "GET", &path, "", "").expect(200);
    assert_eq!((stored_keys(&service), &service.list("")["total"]), (0, &json!(1)));
    let longest = "k".repeat(255);
    let first = keyed(&service, "POST", "/account", &longest, JOHN);
    assert_replay(&first, &keyed(&service, "POST", "/account", &longest, JOHN));
}

#[test]
fn the_same_request_may_be_written_in_another_way() {
    let service = TestService::start();
    let first = keyed(&service, "POST", "/account", "k", JOHN);
    for body in [
        r#"{"country_code":"US","beholder_name":"John Doe"}"#,
        r#" { "beholder_name" : " John\u0020Doe ", "country_code": "US", "card_type": "gold" }"#,
    ] {
        assert_replay(&first, &keyed(&service, "POST", "/account", "k", body));
    }
    let path = account(first.text("id"));
    let send = |if_match| {
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "p"), ("If-Match", if_match)];
        service.send("PATCH", &path, &headers, r#"{"status":"BLOCKED"}"#.into())
    };
    assert_eq!(send("\"7\"").status, 412);
    let changed = send("\"1\"");
    assert_eq!(changed.status, 200, "{}", changed.raw);
    for if_match in ["\"1\"", "\"2\"", "\"7\"", "*"] {
        assert_replay(&changed, &send(if_match));
    }
}

#[test]
fn a_refusal_frees_the_key() {
    let service = TestService::start();
    let (id, deleted) = (service.new_id(), service.deleted_id());
    let unknown = account(crate::service::UNKNOWN_ID);
    keyed(&service, "PATCH", &unknown, "k", JOHN).expect(404);
    keyed(&service, "PATCH", &account(&deleted), "k", JOHN).expect(409);
    keyed(&service, "DELETE", &account(&deleted), "k", "").expect(409);
    keyed(&service, "POST", "/account", "k", "{}").expect(400);
    assert_eq!(stored_keys(&service), 0);
    let first = keyed(&service, "PATCH", &account(&id), "k", JOHN);
    assert_eq!(first.status, 200, "{}", first.raw);
    assert_replay(&first, &keyed(&service, "PATCH", &account(&id), "k", JOHN));
}

#[test]
fn many_at_once_with_one_key_are_one_account_and_one_event() {
    let service = TestService::start();
    // On SQLite one instance has the file.
    let other = service.is_on_postgres().then(|| service.start_another());
    let instances: [&Http; 2] = [&service, other.as_ref().map_or(&service, |other| other.http())];
    let answers = test_harness::at_once(50, &service, |thread, _| {
        keyed(&Http::new(instances[thread % 2].address()), "POST", "/account", "k", JOHN)
    });
    let (first, again): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.header("idempotent-replayed").is_empty());
    assert_eq!((first.len(), again.len()), (1, 49));
    again.iter().for_each(|again| assert_replay(first[0], again));
    assert_eq!((stored_keys(&service), &service.list("")["total"]), (1, &json!(1)));
    service.log_of(1);
}

#[test]
fn of_different_requests_at_once_with_one_key_one_is_done() {
    let service = TestService::start();
    let answers = test_harness::at_once(20, &service, |thread, http| {
        keyed(
            http,
            "POST",
            "/account",
            "k",
            &json!({"beholder_name": format!("{thread}"), "country_code": "US"}).to_string(),
        )
    });
    let (done, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
    assert_eq!((done.len(), refused.len()), (1, 19));
    refused.into_iter().for_each(assert_reused);
    assert_eq!(service.list("")["total"], 1);
}

#[test]
fn overlapping_batches_of_two_instances_never_deadlock() {
    const KEYS: usize = 40;
    let service = TestService::start();
    let other = service.is_on_postgres().then(|| service.start_another());
    let instances: [&Http; 2] = [&service, other.as_ref().map_or(&service, |other| other.http())];
    let ids = test_harness::at_once(16, &service, |thread, _| {
        let http = Http::new(instances[thread % 2].address());
        // Each thread has an order of its own.
        let key = |place: usize| (place * [1, 3, 7, 9][thread / 2 % 4] + thread * 11) % KEYS;
        (0..KEYS)
            .map(key)
            .map(|key| {
                let created = keyed(&http, "POST", "/account", &format!("create-{key}"), JOHN).expect(201);
                let id = created["id"].as_str().expect("an id").to_owned();
                keyed(&http, "PATCH", &account(&id), &format!("change-{key}"), r#"{"status":"BLOCKED"}"#).expect(200);
                id
            })
            .collect::<HashSet<_>>()
    });
    assert!(ids.iter().all(|of_thread| *of_thread == ids[0] && of_thread.len() == KEYS));
    assert_eq!((stored_keys(&service), &service.list("")["total"]), (2 * KEYS as i64, &json!(KEYS)));
    service.log_of(2 * KEYS);
}

#[test]
fn an_expired_key_counts_as_absent_and_is_removed() {
    const DAY: i64 = 24 * 3_600_000_000;
    let clock = Clock::fixed(START_MICROS);
    let service = TestService::start_with(clock.clone(), None);
    let first = keyed(&service, "POST", "/account", "k", JOHN);
    clock.advance_micros(DAY - 1);
    assert_replay(&first, &keyed(&service, "POST", "/account", "k", JOHN));
    (0..20).for_each(|key| drop(keyed(&service, "POST", "/account", &key.to_string(), JOHN).expect(201)));
    clock.advance_micros(1);
    let second = keyed(&service, "POST", "/account", "k", r#"{"beholder_name":"Jane Doe","country_code":"US"}"#);
    assert_eq!((second.status, second.header("idempotent-replayed")), (201, ""));
    assert_ne!(second.text("id"), first.text("id"));
    assert_eq!(stored_keys(&service), 21);
    clock.advance_micros(DAY - 1);
    let removed = || (stored_keys(&service) == 1).then_some(());
    wait_until("the idle writer has removed the twenty expired keys", removed);
    assert_reused(&keyed(&service, "POST", "/account", "k", JOHN));
    clock.advance_micros(1);
    // A busy writer removes them, too.
    let was_removed = (0..100).any(|key| {
        keyed(&service, "POST", "/account", &format!("b{key}"), JOHN).expect(201);
        clock.advance_micros(Duration::from_secs(60).as_micros() as i64);
        stored_keys(&service) == key + 1
    });
    assert!(was_removed, "k is there still");
}

#[test]
fn a_superseded_database_repeats_its_answers_and_takes_no_new_write() {
    let (service, backup) = (TestService::start(), Backup::new());
    let first = keyed(&service, "POST", "/account", "k", JOHN);
    let path = account(first.text("id"));
    let service = service.restart_between(|database| backup.save(database));
    keyed(&service, "PATCH", &path, "later", r#"{"status":"BLOCKED"}"#).expect(200);
    service.log_of(2);
    let service = service.restart_between(|database| backup.restore(database));
    service.superseded();
    assert_replay(&first, &keyed(&service, "POST", "/account", "k", JOHN));
    assert_reused(&keyed(&service, "DELETE", &path, "k", ""));
    let new: Value = keyed(&service, "PATCH", &path, "later", r#"{"status":"BLOCKED"}"#).expect(503);
    assert_eq!(new["code"], "database_superseded");
}
