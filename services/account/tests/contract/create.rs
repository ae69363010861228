//! `POST /account`

use std::collections::HashSet;

use clock::Clock;
use serde_json::{Value, json};

use crate::service::{START_MICROS, TestService, account, written};

const REQUIRED: &str = "all fields are required to create an account";
const BAD_COUNTRY: &str = "country_code must be an ISO 3166-1 alpha-2 code in upper case, such as US";

#[test]
fn a_new_account_is_201_with_all_its_fields_in_order() {
    let service = TestService::start_with(Clock::fixed(START_MICROS + 123_456), None);
    let answer = service.create("John Doe", "US");
    let (id, number) = (answer.text("id").to_owned(), answer.text("account_number").to_owned());
    let expected = format!(
        "{{\"id\":\"{id}\",\"account_number\":\"{number}\",\"beholder_name\":\"John Doe\",\"country_code\":\"US\",\
         \"status\":\"ACTIVE\",\"version\":1,\"created_at\":\"2025-11-25T10:30:00.123456Z\",\
         \"updated_at\":\"2025-11-25T10:30:00.123456Z\"}}"
    );
    assert_eq!(answer.raw, expected);
    assert_eq!(answer.raw, written(&answer.body), "as the other tests compare accounts");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("location"), account(&id));
    assert_eq!(answer.header("etag"), "\"1\"");
    assert_eq!(service.get(answer.header("location")).raw, answer.raw);
}

#[test]
fn an_id_is_a_uuid_of_version_7_and_later_ones_are_greater() {
    // A clock that stands still is the hardest case.
    let service = TestService::start_with(Clock::fixed(START_MICROS), None);
    let ids: Vec<_> = (0..50).map(|_| service.new_id()).collect();
    for id in &ids {
        let uuid = uuid::Uuid::parse_str(id).unwrap();
        assert_eq!((uuid.get_version_num(), uuid.get_variant()), (7, uuid::Variant::RFC4122));
        assert_eq!(uuid.hyphenated().to_string(), *id, "lower case, with hyphens");
        let (seconds, _) = uuid.get_timestamp().unwrap().to_unix();
        assert_eq!(seconds, START_MICROS as u64 / 1_000_000);
    }
    assert!(ids.is_sorted() && ids.iter().collect::<HashSet<_>>().len() == 50, "{ids:#?}");
}

#[test]
fn an_account_number_is_acc_and_eight_digits_or_more() {
    let service = TestService::start();
    for _ in 0..50 {
        let answer = service.create("John Doe", "US");
        let digits = answer.text("account_number").strip_prefix("ACC-").unwrap();
        assert!(digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit()), "{digits}");
    }
}

#[test]
fn what_is_missing_null_or_blank_is_asked_for() {
    let service = TestService::start();
    for (body, field) in [
        (json!({}), "beholder_name"),
        (json!({"country_code": "US"}), "beholder_name"),
        (json!({"beholder_name": null, "country_code": "US"}), "beholder_name"),
        (json!({"beholder_name": "", "country_code": "US"}), "beholder_name"),
        (json!({"beholder_name": " \t\n\u{a0}", "country_code": "US"}), "beholder_name"),
        (json!({"beholder_name": "", "country_code": "nowhere"}), "beholder_name"),
        (json!({"beholder_name": "John Doe"}), "country_code"),
        (json!({"beholder_name": "John Doe", "country_code": null}), "country_code"),
        (json!({"beholder_name": "John Doe", "country_code": ""}), "country_code"),
        (json!({"beholder_name": "John Doe", "country_code": "  "}), "country_code"),
    ] {
        service.post("/account", &body).expect_error(400, "missing_fields", REQUIRED, Some(field));
    }
    assert_eq!(service.list("")["total"], 0);
}

#[test]
fn a_name_is_kept_without_the_space_around_it() {
    let service = TestService::start();
    let longest = "ß".repeat(200);
    for (given, kept) in [
        ("  John Doe \n", "John Doe"),
        ("\u{3000}山田 太郎\u{3000}", "山田 太郎"),
        ("Zoë  O'Brien-\"Smith\" \\ 🦀", "Zoë  O'Brien-\"Smith\" \\ 🦀"),
        ("x", "x"),
        (&longest, &longest),
        (&format!(" {longest} "), &longest),
        ("{\"id\":1}", "{\"id\":1}"),
        ("'); DROP TABLE accounts; --", "'); DROP TABLE accounts; --"),
    ] {
        let answer = service.create(given, "US");
        assert_eq!(answer.text("beholder_name"), kept);
        assert_eq!(service.get(answer.header("location")).text("beholder_name"), kept);
    }
}

#[test]
fn a_name_that_is_too_long_invisible_or_holds_control_characters_is_refused() {
    let service = TestService::start();
    let too_long = ["x".repeat(201), "ß".repeat(201), "🦀".repeat(201), "x".repeat(60_000)];
    let too_long = too_long.iter().map(|name| (name.as_str(), "beholder_name must have at most 200 characters"));
    let invisible = ["\u{200B}", "\u{3164}\u{301}", " \u{2800} \u{FEFF}"];
    let invisible = invisible.map(|name| (name, "beholder_name must have a visible character"));
    let control = [
        ("John\nDoe", "U+000A"),
        ("John\u{0}Doe", "U+0000"),
        ("\u{0}", "U+0000"),
        ("John\u{7f}", "U+007F"),
        ("John\u{85}Doe", "U+0085"),
        ("John\tDoe", "U+0009"),
        ("John\u{1b}[31m", "U+001B"),
        ("John\u{202E}eoD", "U+202E"),
        ("John\u{FFFF}", "U+FFFF"),
    ];
    let rule = "beholder_name must not have control characters, bidirectional controls or noncharacters: it has";
    let control = control.map(|(name, char)| (name, format!("{rule} {char}")));
    let control = control.iter().map(|(name, text)| (*name, text.as_str()));
    for (name, text) in too_long.chain(invisible).chain(control) {
        let answer = service.post("/account", &json!({"beholder_name": name, "country_code": "US"}));
        answer.expect_error(400, "invalid_beholder_name", text, Some("beholder_name"));
    }
    assert_eq!(service.list("")["total"], 0);
}

#[test]
fn a_country_is_one_of_iso_3166_in_upper_case() {
    let service = TestService::start();
    for country in ["US", "DE", "GB", "AX", "ZW", "AD"] {
        assert_eq!(service.create("John Doe", country).text("country_code"), country);
    }
    for country in ["us", "Us", "USA", "U", "XX", "EU", "ZZ", " US", "US ", "ＵＳ", "U\u{0}", "12", "USUS"] {
        let answer = service.post("/account", &json!({"beholder_name": "John Doe", "country_code": country}));
        answer.expect_error(400, "invalid_country_code", BAD_COUNTRY, Some("country_code"));
    }
    let answer = service.post("/account", &json!({"beholder_name": "John Doe", "country_code": "UK"}));
    let text = "country_code must be an ISO 3166-1 alpha-2 code in upper case; the United Kingdom has GB";
    answer.expect_error(400, "invalid_country_code", text, Some("country_code"));
}

#[test]
fn nobody_chooses_what_the_service_decides() {
    let service = TestService::start();
    for field in ["id", "account_number", "status", "version", "created_at", "updated_at"] {
        let mut body = json!({"beholder_name": "John Doe", "country_code": "US"});
        body[field] = Value::from("DELETED");
        let created = service.post("/account", &body);
        assert_eq!((created.status, &created.body["status"]), (201, &json!("ACTIVE")), "{field}");
        assert_ne!(created.body[field], "DELETED");
    }
}

#[test]
fn the_same_request_twice_is_two_accounts() {
    let service = TestService::start();
    let (one, other) = (service.create("John Doe", "US"), service.create("John Doe", "US"));
    assert_ne!(one.text("id"), other.text("id"));
    assert_ne!(one.text("account_number"), other.text("account_number"));
}
