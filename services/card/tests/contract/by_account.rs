//! `GET /cards/by-account?account_id=&limit=&after=`

use serde_json::{Value, json};

use crate::service::{TestService, UNKNOWN_ID, by_account, ids};

#[test]
fn an_account_without_cards_has_an_empty_list_known_or_not() {
    let service = TestService::start();
    let account = service.account();
    for id in [UNKNOWN_ID, &account] {
        let answer = service.get(&by_account(id));
        assert_eq!((answer.status, &*answer.raw), (200, r#"{"cards":[],"total":0,"next":null}"#));
    }
}

#[test]
fn the_cards_of_an_account_and_no_others_are_listed_newest_first() {
    let service = TestService::start();
    let accounts = [service.account(), service.account()];
    let made: Vec<_> = (0..6).map(|n| service.card("US", &accounts[n % 2])).collect();
    for (index, account) in accounts.iter().enumerate() {
        let alone: Vec<_> = made.iter().skip(index).step_by(2).rev().map(|card| &*card.raw).collect();
        let expected = format!("{{\"cards\":[{}],\"total\":3,\"next\":null}}", alone.join(","));
        assert_eq!(service.get(&by_account(account)).raw, expected);
        assert_eq!(service.get(&by_account(&account.to_uppercase())).raw, expected);
        let next = made[index + 2].text("id");
        let first = format!("{{\"cards\":[{}],\"total\":3,\"next\":\"{next}\"}}", alone[..2].join(","));
        assert_eq!(service.get(&format!("{}&limit=2", by_account(account))).raw, first);
        let rest = service.get(&format!("{}&limit=2&after={next}", by_account(account))).expect(200);
        assert_eq!((&rest["cards"], &rest["next"]), (&json!([made[index].body]), &Value::Null));
    }
    assert_eq!(ids(&service.get("/cards").expect(200)).len(), 6);
}

#[test]
fn a_missing_account_is_asked_for() {
    let service = TestService::start();
    for path in ["/cards/by-account", "/cards/by-account?account_id=", "/cards/by-account?id=x"] {
        let answer = service.get(path);
        answer.expect_error(400, "missing_account_id", "account ID is required", Some("account_id"));
    }
}

#[test]
fn an_account_id_that_is_no_uuid_is_named() {
    let service = TestService::start();
    let text = "account_id must be a UUID such as 550e8400-e29b-41d4-a716-446655440000";
    for id in ["42", "%20", "ACC-12345678"] {
        service.get(&by_account(id)).expect_error(400, "invalid_account_id", text, Some("account_id"));
    }
}

#[test]
fn limit_and_after_are_checked_as_in_the_list_of_all() {
    let service = TestService::start();
    let account = service.account();
    service.card("US", &account);
    for limit in ["0", "201", "abc", "", "-1"] {
        let answer = service.get(&format!("{}&limit={limit}", by_account(&account)));
        answer.expect_error(400, "invalid_limit", "limit must be a whole number from 1 to 200", Some("limit"));
    }
    for after in [UNKNOWN_ID, "abc", ""] {
        let answer = service.get(&format!("{}&after={after}", by_account(&account)));
        answer.expect_error(400, "invalid_after", "after must be the next of an earlier page", Some("after"));
    }
}
