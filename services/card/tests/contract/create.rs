//! `POST /card`

use std::collections::HashSet;

use account_events::AccountStatus;
use clock::Clock;
use serde_json::{Value, json};

use crate::service::{START_MICROS, Settings, TestService, UNKNOWN_ID, card, changed, written};

#[test]
fn a_new_card_is_201_with_all_its_fields_in_order() {
    let clock = Clock::fixed(START_MICROS + 123_456);
    let service = TestService::start_with(Settings { clock, ..Settings::default() });
    let account = service.account();
    let answer = service.card("US", &account);
    let (id, number) = (answer.text("id").to_owned(), answer.text("card_number").to_owned());
    let expected = format!(
        "{{\"id\":\"{id}\",\"card_number\":\"{number}\",\"country\":\"US\",\"account_id\":\"{account}\",\
         \"deleted\":false,\"creation_timestamp\":\"2025-11-25T10:30:00.123456Z\"}}"
    );
    assert_eq!(answer.raw, expected);
    assert_eq!(answer.raw, written(&answer.body), "as the other tests compare cards");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("location"), card(&id));
    assert_eq!(service.get(answer.header("location")).raw, answer.raw);
}

#[test]
fn a_card_number_is_the_country_and_eight_hex_digits_or_more() {
    let service = TestService::start();
    let account = service.account();
    let mut numbers = HashSet::new();
    for country in ["US", "DE", "GB", "FR", "ZW"].into_iter().cycle().take(50) {
        let answer = service.card(country, &account);
        let digits = answer.text("card_number").strip_prefix(&format!("{country}-")).unwrap();
        let hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        assert!(digits.len() >= 8 && digits.bytes().all(hex), "{digits}");
        assert!(numbers.insert(digits.to_owned()), "unique without the country too");
    }
}

#[test]
fn an_id_is_a_uuid_of_version_7_and_later_ones_are_greater() {
    let clock = Clock::fixed(START_MICROS);
    let service = TestService::start_with(Settings { clock, ..Settings::default() });
    let account = service.account();
    let ids: Vec<_> = (0..50).map(|_| service.card("US", &account).text("id").to_owned()).collect();
    assert!(ids.iter().all(|id| uuid::Uuid::parse_str(id).unwrap().get_version_num() == 7), "{ids:?}");
    assert!(ids.is_sorted_by(|one, other| one < other), "{ids:?}");
}

#[test]
fn what_is_missing_null_or_blank_is_asked_for() {
    let service = TestService::start();
    let account = service.account();
    let (country, id) = (
        ("missing_country", "country is required", "country"),
        ("missing_account_id", "account ID is required", "account_id"),
    );
    for (body, (code, text, field)) in [
        (json!({}), country),
        (json!({"account_id": account}), country),
        (json!({"country": null, "account_id": account}), country),
        (json!({"country": "", "account_id": account}), country),
        (json!({"country": " \t\n", "account_id": account}), country),
        (json!({"country": "US"}), id),
        (json!({"country": "US", "account_id": null}), id),
        (json!({"country": "US", "account_id": ""}), id),
        (json!({"country": "US", "account_id": "  "}), id),
    ] {
        service.post("/card", &body).expect_error(400, code, text, Some(field));
    }
    assert_eq!(service.get("/cards").body["total"], 0);
}

#[test]
fn a_country_is_one_of_iso_3166_in_upper_case() {
    let service = TestService::start();
    let account = service.account();
    let text = "country must be an ISO 3166-1 alpha-2 code in upper case, such as US";
    for country in ["us", "USA", "U", "XX", "EU", " US", "US ", "ＵＳ", "12", "U\u{0}"] {
        service.post_card(country, &account).expect_error(400, "invalid_country", text, Some("country"));
    }
    let text = "country must be an ISO 3166-1 alpha-2 code in upper case; the United Kingdom has GB";
    service.post_card("UK", &account).expect_error(400, "invalid_country", text, Some("country"));
}

#[test]
fn an_account_id_is_a_uuid_in_either_case() {
    let service = TestService::start();
    let account = service.account();
    assert_eq!(service.card("US", &account.to_uppercase()).text("account_id"), account);
    let text = "account_id must be a UUID such as 550e8400-e29b-41d4-a716-446655440000";
    let (bare, long) = (account.replace('-', ""), "a".repeat(10_000));
    for id in ["42", "ACC-12345678", &bare, &format!(" {account}"), &format!("{{{account}}}"), "\u{0}", &long] {
        service.post_card("US", id).expect_error(400, "invalid_account_id", text, Some("account_id"));
    }
}

#[test]
fn nobody_chooses_what_the_service_decides() {
    let service = TestService::start();
    let account = service.account();
    for field in ["id", "card_number", "deleted", "creation_timestamp"] {
        let mut body = json!({"country": "US", "account_id": account});
        body[field] = Value::Bool(true);
        let created = service.post("/card", &body);
        assert_eq!((created.status, &created.body["deleted"]), (201, &Value::Bool(false)), "{field}");
        assert_ne!((field, &created.body[field]), (field, &Value::Bool(true)));
    }
}

#[test]
fn an_account_that_no_event_told_of_is_404() {
    let service = TestService::start();
    service.account();
    let answer = service.post_card("US", UNKNOWN_ID);
    answer.expect_error(404, "account_not_found", "account not found", None);
    assert_eq!(answer.header("retry-after"), "");
}

#[test]
fn a_blocked_account_gets_no_card_until_it_is_active_again() {
    let service = TestService::start();
    let account = service.account();
    let first = service.card("US", &account);
    for version in [2, 4, 6] {
        service.tell(&[changed(&account, AccountStatus::Blocked, version)]);
        let answer = service.post_card("US", &account);
        answer.expect_error(403, "account_inactive", "cannot create card for inactive account", None);
        service.tell(&[changed(&account, AccountStatus::Active, version + 1)]);
        service.card("US", &account);
    }
    assert_eq!(service.get(first.header("location")).raw, first.raw, "blocking ends no card");
}

#[test]
fn a_deleted_account_gets_no_card() {
    let service = TestService::start();
    let account = service.account();
    service.tell(&[changed(&account, AccountStatus::Deleted, 2)]);
    let answer = service.post_card("US", &account);
    answer.expect_error(403, "account_deleted", "cannot create card for deleted account", None);
    assert_eq!(service.get("/cards").body["total"], 0);
}

#[test]
fn what_is_wrong_with_the_request_is_said_before_what_is_with_the_account() {
    let service = TestService::start();
    let answer = service.post_card("", UNKNOWN_ID);
    answer.expect_error(400, "missing_country", "country is required", Some("country"));
}
