//! `GET /cards?limit=&after=`, and reading both lists page by page.

use clock::Clock;
use serde_json::{Value, json};

use crate::service::{START_MICROS, Settings, TestService, UNKNOWN_ID, by_account, ids};

#[test]
fn an_empty_list_is_a_list() {
    let service = TestService::start();
    for path in ["/cards", "/cards?limit=1", "/cards?limit=200"] {
        let answer = service.get(path);
        assert_eq!((answer.status, &*answer.raw), (200, r#"{"cards":[],"total":0,"next":null}"#));
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

#[test]
fn cards_are_listed_newest_first_each_as_it_is_read_alone_deleted_or_not() {
    let service = TestService::start();
    let account = service.account();
    let cards: Vec<_> = ["US", "DE", "FR"].map(|country| service.card(country, &account)).into();
    service.delete(cards[1].header("location")).expect(200);
    let alone: Vec<_> = cards.iter().rev().map(|card| service.get(card.header("location")).raw).collect();
    assert!(alone[1].contains("\"deleted\":true"));
    let all = format!("{{\"cards\":[{}],\"total\":3,\"next\":null}}", alone.join(","));
    assert_eq!((service.get("/cards").raw, service.get(&by_account(&account)).raw), (all.clone(), all));
    let next = cards[1].text("id");
    let first = format!("{{\"cards\":[{}],\"total\":3,\"next\":\"{next}\"}}", alone[..2].join(","));
    assert_eq!(service.get("/cards?limit=2").raw, first);
    let second = format!("{{\"cards\":[{}],\"total\":3,\"next\":null}}", alone[2]);
    assert_eq!(service.get(&format!("/cards?limit=2&after={next}")).raw, second);
}

#[test]
fn the_newest_comes_first_even_when_the_clock_is_set_back() {
    let clock = Clock::fixed(START_MICROS);
    let service = TestService::start_with(Settings { clock: clock.clone(), ..Settings::default() });
    let account = service.account();
    let mut newest_first = Vec::new();
    for _ in 0..10 {
        newest_first.insert(0, service.card("US", &account).text("id").to_owned());
        clock.advance_micros(-60_000_000);
    }
    assert_eq!(ids(&service.get("/cards").expect(200)), newest_first);
}

#[test]
fn walking_visits_each_card_once_while_others_are_made() {
    const COUNT: usize = 12;
    let service = TestService::start();
    let accounts = [service.account(), service.account()];
    let make = || accounts.each_ref().map(|account| service.card("US", account));
    for _ in 0..COUNT {
        make();
    }
    for list in ["/cards?".to_owned(), format!("{}&", by_account(&accounts[0]))] {
        for limit in (1..=COUNT + 1).chain([200]) {
            let expected = ids(&service.get(&format!("{list}limit=200")).expect(200));
            let (mut seen, mut after, mut more_made) = (Vec::new(), String::new(), false);
            loop {
                let page = service.get(&format!("{list}limit={limit}{after}")).expect(200);
                assert!(
                    ids(&page).len() <= limit && page["total"].as_u64().unwrap() >= expected.len() as u64,
                    "{page}"
                );
                seen.extend(ids(&page));
                let Some(next) = page["next"].as_str() else { break };
                assert_eq!(Some(next), seen.last().map(String::as_str), "a page that is not the last one is full");
                after = format!("&after={next}");
                // Only once, so that no list has more than 200 cards.
                if !std::mem::replace(&mut more_made, true) {
                    make();
                }
            }
            assert_eq!(seen, expected, "{list} limit {limit}");
        }
    }
}

#[test]
fn the_last_page_has_no_next_even_when_it_is_full() {
    let service = TestService::start();
    let account = service.account();
    for _ in 0..4 {
        service.card("US", &account);
    }
    for list in ["/cards?".to_owned(), format!("{}&", by_account(&account))] {
        let first = service.get(&format!("{list}limit=2")).expect(200);
        let second = service.get(&format!("{list}limit=2&after={}", first["next"].as_str().unwrap())).expect(200);
        assert_eq!((ids(&second).len(), &second["next"]), (2, &Value::Null));
        let behind = service.get(&format!("{list}after={}", ids(&second)[1])).expect(200);
        assert_eq!((ids(&behind).len(), &behind["next"], &behind["total"]), (0, &Value::Null, &json!(4)));
    }
}

#[test]
fn a_page_has_50_cards_unless_asked_for_1_to_200() {
    let service = TestService::start();
    let account = service.account();
    test_harness::at_once(3, &service, |_, http| {
        for _ in 0..67 {
            http.post("/card", &json!({"country": "US", "account_id": account})).expect(201);
        }
    });
    for list in ["/cards?".to_owned(), format!("{}&", by_account(&account))] {
        for (query, length) in [("", 50), ("limit=1", 1), ("limit=50", 50), ("limit=200", 200), ("limit=007", 7)] {
            let page = service.get(&format!("{list}{query}")).expect(200);
            assert_eq!((ids(&page).len(), &page["total"]), (length, &json!(201)), "{list}{query}");
            assert!(page["next"].is_string(), "{list}{query}");
        }
    }
}

#[test]
fn a_limit_that_is_no_number_from_1_to_200_is_refused() {
    let service = TestService::start();
    for limit in ["0", "201", "-1", "%2B5", "abc", "", "1.0", "99999999999999999999"] {
        let text = "limit must be a whole number from 1 to 200";
        service.get(&format!("/cards?limit={limit}")).expect_error(400, "invalid_limit", text, Some("limit"));
    }
}

#[test]
fn an_after_that_no_page_gave_is_refused() {
    let service = TestService::start();
    let number = service.card("US", &service.account()).text("card_number").to_owned();
    for after in [UNKNOWN_ID, "abc", "", "1", "null", &number] {
        let text = "after must be the next of an earlier page";
        service.get(&format!("/cards?after={after}")).expect_error(400, "invalid_after", text, Some("after"));
    }
}
