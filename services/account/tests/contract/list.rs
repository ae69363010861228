//! `GET /accounts?limit=&after=&status=`

use clock::Clock;
use serde_json::{Value, json};

use crate::service::{START_MICROS, TestService, UNKNOWN_ID, account, ids};

#[test]
fn an_empty_list_is_a_list() {
    let service = TestService::start();
    for query in ["", "?limit=1", "?status=BLOCKED", "?limit=200&status=DELETED"] {
        let answer = service.get(&format!("/accounts{query}"));
        assert_eq!((answer.status, &*answer.raw), (200, r#"{"accounts":[],"total":0,"next":null}"#));
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

#[test]
fn accounts_are_listed_newest_first_each_as_it_is_read_alone() {
    let service = TestService::start();
    let accounts: Vec<_> = ["John", "Jane", "Zoë"].map(|name| service.create(name, "US")).into();
    service.patch(accounts[1].text("id"), &json!({"status": "BLOCKED"})).expect(200);
    let alone: Vec<_> = accounts.iter().rev().map(|account| service.get(account.header("location")).raw).collect();
    let all = format!("{{\"accounts\":[{}],\"total\":3,\"next\":null}}", alone.join(","));
    assert_eq!(service.get("/accounts").raw, all);
    let next = accounts[1].text("id");
    let first = format!("{{\"accounts\":[{}],\"total\":3,\"next\":\"{next}\"}}", alone[..2].join(","));
    assert_eq!(service.get("/accounts?limit=2").raw, first);
    let second = format!("{{\"accounts\":[{}],\"total\":3,\"next\":null}}", alone[2]);
    assert_eq!(service.get(&format!("/accounts?limit=2&after={next}")).raw, second);
}

#[test]
fn the_newest_comes_first_even_when_the_clock_is_set_back() {
    let clock = Clock::fixed(START_MICROS);
    let service = TestService::start_with(clock.clone(), None);
    let mut newest_first = Vec::new();
    for _ in 0..10 {
        newest_first.insert(0, service.new_id());
        clock.advance_micros(-60_000_000);
    }
    assert_eq!(service.listed_ids(""), newest_first);
}

#[test]
fn walking_visits_each_account_once_while_others_are_created() {
    const COUNT: usize = 23;
    let service = TestService::start();
    for _ in 0..COUNT {
        service.new_id();
    }
    for limit in (1..=COUNT + 1).chain([200]) {
        let expected = service.listed_ids("?limit=200");
        let (mut seen, mut created, mut after) = (Vec::new(), 0, String::new());
        loop {
            let page = service.list(&format!("?limit={limit}{after}"));
            let page_ids = ids(&page);
            assert!(page_ids.len() <= limit && page["total"] == expected.len() + created, "{page}");
            seen.extend(page_ids);
            let Some(next) = page["next"].as_str() else { break };
            assert_eq!(Some(next), seen.last().map(String::as_str), "a page that is not the last one is full");
            after = format!("&after={next}");
            // A few only, so that 200 remain the most that a list holds here.
            if created < 3 {
                service.new_id();
                created += 1;
            }
        }
        assert_eq!(seen, expected, "limit {limit}");
    }
}

#[test]
fn the_last_page_has_no_next_even_when_it_is_full() {
    let service = TestService::start();
    for _ in 0..4 {
        service.new_id();
    }
    let first = service.list("?limit=2");
    let second = service.list(&format!("?limit=2&after={}", first["next"].as_str().unwrap()));
    assert_eq!((ids(&second).len(), &second["next"]), (2, &Value::Null));
    let behind = service.list(&format!("?after={}", ids(&second)[1]));
    assert_eq!((ids(&behind).len(), &behind["next"], &behind["total"]), (0, &Value::Null, &json!(4)));
}

#[test]
fn a_page_has_50_accounts_unless_asked_for_1_to_200() {
    let service = TestService::start();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..67).for_each(|_| drop(service.new_id())));
        }
    });
    for (query, length) in [("", 50), ("?limit=1", 1), ("?limit=50", 50), ("?limit=200", 200), ("?limit=007", 7)] {
        let page = service.list(query);
        assert_eq!((ids(&page).len(), &page["total"]), (length, &json!(201)), "{query}");
        assert!(page["next"].is_string(), "{query}");
    }
}

#[test]
fn a_status_lists_its_accounts_with_their_total() {
    let service = TestService::start();
    let ids: Vec<_> = (0..9).map(|_| service.new_id()).collect();
    for id in &ids[..4] {
        service.patch(id, &json!({"status": "BLOCKED"})).expect(200);
    }
    service.patch(&ids[3], &json!({"status": "ACTIVE"})).expect(200);
    service.delete(&account(&ids[2])).expect(200);
    service.patch(&ids[8], &json!({"status": "DELETED"})).expect(200);
    let newest_first = |indices: &[usize]| indices.iter().map(|index| ids[*index].clone()).collect::<Vec<_>>();
    let expected = [
        ("ACTIVE", newest_first(&[7, 6, 5, 4, 3])),
        ("BLOCKED", newest_first(&[1, 0])),
        ("DELETED", newest_first(&[8, 2])),
    ];
    for (status, expected) in expected {
        let page = service.list(&format!("?status={status}"));
        assert_eq!((crate::service::ids(&page), &page["next"]), (expected.clone(), &Value::Null));
        assert_eq!(page["total"], expected.len(), "{status}");
        assert!(page["accounts"].as_array().unwrap().iter().all(|account| account["status"] == status));
        // In pages of one, behind an account of any status.
        let first = service.list(&format!("?status={status}&limit=1"));
        assert_eq!((&first["next"], &first["total"]), (&json!(expected[0]), &json!(expected.len())));
        let rest = service.listed_ids(&format!("?status={status}&after={}", expected[0]));
        assert_eq!(rest, expected[1..]);
    }
    assert_eq!(service.listed_ids(&format!("?status=BLOCKED&after={}", ids[5])), newest_first(&[1, 0]));
    assert_eq!(service.list("")["total"], 9);
}

#[test]
fn a_limit_that_is_no_number_from_1_to_200_is_refused() {
    let service = TestService::start();
    service.new_id();
    for limit in ["0", "201", "-1", "%2B5", "abc", "", "1.0", "%205", "99999999999999999999", "1e2"] {
        let text = "limit must be a whole number from 1 to 200";
        service.get(&format!("/accounts?limit={limit}")).expect_error(400, "invalid_limit", text, Some("limit"));
    }
}

#[test]
fn an_after_that_no_page_gave_is_refused() {
    let service = TestService::start();
    let number = service.create("John Doe", "US").text("account_number").to_owned();
    for after in [UNKNOWN_ID, "abc", "", "1", "null", &number, "%00"] {
        let text = "after must be the next of an earlier page";
        service.get(&format!("/accounts?after={after}")).expect_error(400, "invalid_after", text, Some("after"));
    }
}

#[test]
fn a_status_outside_the_three_is_refused() {
    let service = TestService::start();
    for status in ["active", "CLOSED", "", "ACTIVE%20", "ACTIVE,BLOCKED"] {
        let text = "status must be ACTIVE, BLOCKED or DELETED";
        service.get(&format!("/accounts?status={status}")).expect_error(400, "invalid_status", text, Some("status"));
    }
}
