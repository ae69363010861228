//! Many callers at once.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use test_harness::at_once;

use crate::service::{Placed, TestService, account};

/// The version of an event, by its `ce_sequence`.
fn version(placed: &Placed) -> u64 {
    let sequence = placed.record.headers.get("ce_sequence").expect("a version");
    std::str::from_utf8(sequence).expect("text").parse().expect("a number")
}

#[test]
fn accounts_made_at_once_are_all_there_with_numbers_of_their_own() {
    const THREADS: usize = 32;
    const EACH: usize = 100;
    let service = TestService::start();
    let body = json!({"beholder_name": "John Doe", "country_code": "US"});
    let made: Vec<Value> = at_once(THREADS, &service, |_, http| {
        (0..EACH).map(|_| http.post("/account", &body).expect(201)).collect::<Vec<_>>()
    })
    .concat();
    let distinct = |field: &str| made.iter().map(|account| account[field].as_str().unwrap()).collect::<HashSet<_>>();
    assert_eq!(distinct("id").len(), THREADS * EACH);
    assert_eq!(distinct("account_number").len(), THREADS * EACH);
    assert_eq!(service.list("")["total"], THREADS * EACH);

    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let page = service.list(&format!("?limit=200{after}"));
        listed.extend(page["accounts"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    let by_id = |accounts: &[Value]| {
        accounts.iter().map(|account| (account["id"].to_string(), account.clone())).collect::<HashMap<_, _>>()
    };
    assert_eq!(listed.len(), THREADS * EACH);
    assert_eq!(by_id(&listed), by_id(&made));
    let newest_first: Vec<_> = listed.iter().map(|account| account["id"].as_str().unwrap()).collect();
    assert!(newest_first.is_sorted_by(|one, other| one > other), "ids are in the order of creation");

    let keys: HashSet<_> = distinct("id").iter().map(|id| id.as_bytes().to_vec()).collect();
    let log = service.stop_and_read_log();
    assert_eq!(log.len(), THREADS * EACH, "one event an account");
    assert_eq!(log.into_iter().map(|placed| placed.record.key.unwrap()).collect::<HashSet<_>>(), keys);
}

#[test]
fn of_changes_to_one_version_exactly_one_wins() {
    const THREADS: usize = 16;
    const ROUNDS: u64 = 12;
    let service = TestService::start();
    let id = service.new_id();
    for round in 1..=ROUNDS {
        let status = if round % 2 == 0 { "ACTIVE" } else { "BLOCKED" };
        let answers = at_once(THREADS, &service, |thread, http| {
            let body = json!({"status": status, "beholder_name": format!("{round} {thread}")}).to_string();
            http.send("PATCH", &account(&id), &[("If-Match", &format!("\"{round}\""))], body.into())
        });
        let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
        assert_eq!(won.len(), 1, "version {round}");
        assert_eq!(won[0].body["version"], round + 1);
        assert_eq!(service.get(&account(&id)).raw, won[0].raw);
        let text = format!("the account has version {}, which If-Match does not name", round + 1);
        lost.iter().for_each(|answer| answer.expect_error(412, "version_mismatch", &text, None));
    }
    let versions: Vec<_> = service.stop_and_read_log().iter().map(version).collect();
    assert_eq!(versions, (1..=ROUNDS + 1).collect::<Vec<_>>(), "one event a change, in the order of versions");
}

#[test]
fn whatever_happens_at_once_is_in_the_log_once_and_in_order() {
    const THREADS: usize = 8;
    let service = TestService::start();
    let ids: Vec<_> = (0..4).map(|_| service.new_id()).collect();
    // Each thread changes every account in turn, and one of them deletes.
    let done = at_once(THREADS, &service, |thread, http| {
        let mut done = Vec::new();
        for round in 0..20 {
            for id in &ids {
                let status = ["BLOCKED", "ACTIVE"][(thread + round) % 2];
                let answer = http.send_json("PATCH", &account(id), &json!({"status": status}));
                assert!([200, 409].contains(&answer.status), "{}", answer.raw);
                done.extend((answer.status == 200).then_some(answer.body));
            }
        }
        for id in &ids {
            assert!([200, 409].contains(&http.delete(&account(id)).status));
        }
        done
    })
    .concat();
    let last: HashMap<_, _> = ids.iter().map(|id| (id.clone(), service.get(&account(id)).body)).collect();
    // What was answered, by account and version: the status of each version is one, whoever was told of it.
    let mut told = HashMap::new();
    for body in &done {
        let key = (body["id"].as_str().unwrap().to_owned(), body["version"].as_u64().unwrap());
        let status = body["status"].as_str().unwrap();
        assert_eq!(*told.entry(key).or_insert(status), status);
    }
    let log = service.stop_and_read_log();
    for id in &ids {
        let events: Vec<_> = log.iter().filter(|placed| placed.record.key.as_deref() == Some(id.as_bytes())).collect();
        let versions: Vec<_> = events.iter().map(|event| version(event)).collect();
        // Every change was one of status, so no version is left out and none is there twice.
        assert_eq!(versions, (1..=last[id]["version"].as_u64().unwrap()).collect::<Vec<_>>());
        for event in &events {
            let value: Value = serde_json::from_slice(event.record.value.as_ref().unwrap()).unwrap();
            if let Some(status) = told.get(&(id.clone(), version(event))) {
                assert_eq!(value["status"], *status);
            }
        }
        assert_eq!(last[id]["status"], "DELETED");
    }
}

#[test]
fn of_deletions_at_once_exactly_one_succeeds() {
    let service = TestService::start();
    for _ in 0..5 {
        let id = service.new_id();
        let statuses = at_once(16, &service, |_, http| http.delete(&account(&id)).status);
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1);
        assert!(statuses.iter().all(|status| [200, 409].contains(status)), "{statuses:?}");
    }
    assert_eq!(service.list("?status=DELETED")["total"], 5);
    assert_eq!(service.stop_and_read_log().len(), 10);
}
