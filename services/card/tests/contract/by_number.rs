//! `GET /cards/by-number?card_number=`

use crate::service::TestService;

fn by_number(number: &str) -> String {
    format!("/cards/by-number?card_number={number}")
}

#[test]
fn each_card_is_found_by_its_number() {
    let service = TestService::start();
    let account = service.account();
    for country in ["US", "DE", "US"] {
        let created = service.card(country, &account);
        let answer = service.get(&by_number(created.text("card_number")));
        assert_eq!((answer.status, &answer.raw), (200, &created.raw));
    }
}

#[test]
fn a_number_that_no_card_has_is_404() {
    let service = TestService::start();
    let created = service.card("US", &service.account());
    let number = created.text("card_number");
    let digits = number.strip_prefix("US-").unwrap();
    let (other_country, no_country) = (format!("DE-{digits}"), format!("XX-{digits}"));
    let (longer, zero, spaced) = (format!("{number}0"), format!("US-0{digits}"), format!("{number}%20"));
    let lower = format!("us-{digits}");
    let other = (0..).map(|n| format!("US-{n:08x}")).find(|other| other != number).unwrap();
    for number in [
        &other_country,
        &no_country,
        &longer,
        &zero,
        &spaced,
        &lower,
        &other,
        digits,
        "US",
        "US-",
        "-",
        "US-1234567",
        "US-ABCDEF01",
        "US-zzzzzzzz",
        "US--1234567",
        "US-ffffffffffffffffffff",
        "US-ffffffffffffffffffffffffff",
        "%00",
    ] {
        service.get(&by_number(number)).expect_error(404, "card_not_found", "card not found", None);
    }
}

#[test]
fn a_missing_number_is_asked_for() {
    let service = TestService::start();
    for path in ["/cards/by-number", "/cards/by-number?card_number=", "/cards/by-number?number=US-1"] {
        let answer = service.get(path);
        answer.expect_error(400, "missing_card_number", "card number is required", Some("card_number"));
    }
}
