//! JSON Web Tokens.

use serde_json::json;
use tempfile::TempDir;
use test_harness::{Issuer, wait_until};

use super::{get, start};

fn settings(issuer: &Issuer) -> Vec<(&'static str, String)> {
    issuer.settings().into()
}

fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[test]
fn both_services_share_the_keys_of_the_issuer() {
    let folder = TempDir::new().unwrap();
    let issuer = Issuer::start();
    let (_tandem, accounts, cards) = start(&folder, &borrowed(&settings(&issuer)));
    let token = issuer.token("accounts:read profile");
    assert_eq!(get(&accounts, "/accounts", &token).status, 200);
    let answer = get(&cards, "/cards", &token);
    answer.expect_error(
        403,
        "insufficient_scope",
        "the credentials do not allow this: it needs the scope cards:read",
        None,
    );
    assert_eq!(get(&accounts, "/accounts", "tdm_a_b").status, 401);
    assert_eq!(issuer.fetches(), 1);
}

#[test]
fn keys_come_by_https_from_a_server_that_an_authority_vouches_for() {
    let (issuer, authority) = Issuer::start_https();
    let token = issuer.token("admin");
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, authority).unwrap();
    let mut settings = settings(&issuer);
    let stranger = TempDir::new().unwrap();
    let (tandem, accounts, _) = start(&stranger, &borrowed(&settings));
    assert_eq!(get(&accounts, "/accounts", &token).status, 503);
    let failure =
        wait_until("an error is logged", || tandem.logged().into_iter().find(|line| line["level"] == "ERROR"));
    assert!(
        failure["message"].as_str().is_some_and(|text| text.starts_with("JWT_JWKS_URL cannot be fetched: ")),
        "{failure}"
    );

    settings.push(("SSL_CERT_FILE", file.to_str().expect("UTF-8").to_owned()));
    let (_tandem, accounts, _) = start(&folder, &borrowed(&settings));
    assert_eq!(get(&accounts, "/accounts", &token).status, 200);
}

#[test]
fn a_service_starts_without_the_issuer_and_refuses_tokens_until_it_has_the_keys() {
    let folder = TempDir::new().unwrap();
    let issuer = Issuer::start();
    issuer.go_away();
    let (_tandem, accounts, _) = start(&folder, &borrowed(&settings(&issuer)));
    let token = issuer.token("admin");
    let answer = get(&accounts, "/accounts", &token);
    let text = "the credentials cannot be checked now: the keys of their issuer are not known yet";
    answer.expect_error(503, "unavailable", text, None);
    assert_eq!(answer.header("retry-after"), "10");
    assert_eq!(accounts.get("/accounts").status, 401);
    assert_eq!(accounts.get("/readyz").expect(200), json!({ "status": "ready" }));
    issuer.publish(&[issuer.key.jwk()]);
    wait_until("the keys are known", || (get(&accounts, "/accounts", &token).status == 200).then_some(()));
}
