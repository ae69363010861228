//! `GET /accounts/by-number?account_number=`

use crate::service::TestService;

fn by_number(number: &str) -> String {
    format!("/accounts/by-number?account_number={number}")
}

#[test]
fn each_account_is_found_by_its_number() {
    let service = TestService::start();
    for name in ["John", "Jane", "Zoë"] {
        let created = service.create(name, "US");
        let answer = service.get(&by_number(created.text("account_number")));
        assert_eq!((answer.status, &answer.raw, answer.header("etag")), (200, &created.raw, "\"1\""));
    }
}

#[test]
fn a_number_that_no_account_has_is_404() {
    let service = TestService::start();
    let created = service.create("John Doe", "US");
    let number = created.text("account_number");
    let digits = number.strip_prefix("ACC-").unwrap();
    let other = (0..10_000_000).map(|n| format!("ACC-{n:08}")).find(|other| other != number).unwrap();
    let (lower, spaced) = (number.to_lowercase(), format!("{number}%20"));
    let (longer, zero) = (format!("{number}0"), format!("ACC-0{digits}"));
    for number in [
        &other,
        &lower,
        &spaced,
        &longer,
        &zero,
        digits,
        "ACC-",
        "ACC-1234567",
        "ACC-abcdefgh",
        "ACC-+1234567",
        "US-1234",
        "ACC-99999999999999999999",
        "ACC-999999999999999999999999999999999",
        "%00",
        "ACC-%D9%A1%D9%A2%D9%A3%D9%A4",
    ] {
        service.get(&by_number(number)).expect_error(404, "account_not_found", "account not found", None);
    }
}

#[test]
fn a_missing_number_is_asked_for() {
    let service = TestService::start();
    for path in ["/accounts/by-number", "/accounts/by-number?account_number=", "/accounts/by-number?number=ACC-1"] {
        let text = "Account number parameter is required";
        service.get(path).expect_error(400, "missing_account_number", text, Some("account_number"));
    }
}
