//! The requests that most tests make.

use std::net::TcpListener;

use account_events::AccountId;
use serde_json::{Value, json};
use test_harness::{Answer, Http};

use crate::random::Random;

/// The body of `POST /account`.
pub(crate) fn john_doe() -> Value {
    json!({ "beholder_name": "John Doe", "country_code": "US" })
}

/// The id of a new account.
pub(crate) fn create_account(accounts: &Http) -> AccountId {
    accounts.post("/account", &john_doe()).expect(201)["id"].as_str().and_then(|id| id.parse().ok()).expect("an id")
}

pub(crate) fn set_status(accounts: &Http, id: AccountId, status: &str) {
    accounts.send_json("PUT", &format!("/account?id={id}"), &json!({ "status": status })).expect(200);
}

pub(crate) fn delete_account(accounts: &Http, id: AccountId) {
    accounts.delete(&format!("/account?id={id}")).expect(200);
}

/// The body of `POST /card`.
pub(crate) fn card_of(account: AccountId) -> Value {
    json!({ "country": "US", "account_id": account.to_string() })
}

pub(crate) fn create_card(cards: &Http, account: AccountId) -> Answer {
    cards.post("/card", &card_of(account))
}

/// The text of an error's answer.
pub(crate) fn error(answer: &Answer) -> &str {
    answer.body["error"].as_str().unwrap_or_default()
}

/// A port that nobody listens on, outside the range from which the system picks ports, so that it stays free.
pub(crate) fn free_port(random: &mut Random) -> u16 {
    let ports = std::iter::repeat_with(|| 20_000 + random.below(10_000) as u16);
    ports.take(1_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}
