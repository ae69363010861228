//! Writers that send each request to whichever instance is there, and note what was acknowledged.

use account_events::{AccountId, AccountStatus, Version};
use serde_json::{Value, json};
use test_harness::{Answer, Http};
use uuid::Uuid;

use super::cluster::{Cluster, any};
use crate::random::Random;
use crate::requests::{card_of, john_doe};

/// An account as the last acknowledged answer left it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    pub(super) id: AccountId,
    pub(super) status: AccountStatus,
    pub(super) version: Version,
    /// What it is if the request was done to which no answer came, or a 503. It is left alone from then on.
    pub(super) perhaps: Option<AccountStatus>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Card {
    pub(super) id: Uuid,
    pub(super) account: AccountId,
    pub(super) deleted: bool,
    /// Whether it was asked to be deleted, and no answer came, or a 503.
    pub(super) perhaps_deleted: bool,
}

/// Writes to accounts and cards of its own, so that it knows what each must be.
pub(super) struct Writer {
    random: Random,
    pub(super) accounts: Vec<Account>,
    pub(super) cards: Vec<Card>,
    /// Creations of accounts to which no answer came, or a 503.
    pub(super) unknown_accounts: usize,
}

impl Account {
    pub(super) fn may_be_deleted(&self) -> bool {
        self.status == AccountStatus::Deleted || self.perhaps == Some(AccountStatus::Deleted)
    }
}

impl Writer {
    pub(super) fn new(seed: u64) -> Self {
        Writer { random: Random::new(seed), accounts: Vec::new(), cards: Vec::new(), unknown_accounts: 0 }
    }

    /// Makes one request; `true` if it was done.
    pub(super) fn write(&mut self, cluster: &Cluster) -> bool {
        let (accounts, cards) = (any(&cluster.accounts, &mut self.random), any(&cluster.cards, &mut self.random));
        let choice = self.random.below(100);
        if choice < 25 || self.accounts.is_empty() {
            return self.create_account(&accounts).is_some();
        }
        let account = self.random.below(self.accounts.len());
        match choice {
            25..55 => self.create_card(&cards, account),
            55..70 => self.delete_card(&cards),
            70..93 => {
                let blocked = self.accounts[account].status == AccountStatus::Blocked;
                let status = if blocked { AccountStatus::Active } else { AccountStatus::Blocked };
                self.change(&accounts, account, status)
            }
            _ => self.change(&accounts, account, AccountStatus::Deleted),
        }
    }

    /// The place of the new account.
    pub(super) fn create_account(&mut self, accounts: &Http) -> Option<usize> {
        let Some(answer) = send(accounts, "POST", "/account", &john_doe()) else {
            self.unknown_accounts += 1;
            return None;
        };
        let id = answer.expect(201)["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
        self.accounts.push(Account { id, status: AccountStatus::Active, version: 1, perhaps: None });
        Some(self.accounts.len() - 1)
    }

    pub(super) fn change(&mut self, accounts: &Http, account: usize, status: AccountStatus) -> bool {
        let account = &mut self.accounts[account];
        if account.may_be_deleted() || account.perhaps.is_some() {
            return false;
        }
        let (id, deletes) = (account.id, status == AccountStatus::Deleted);
        let (method, body) =
            if deletes { ("DELETE", Value::Null) } else { ("PUT", json!({ "status": status.as_str() })) };
        let Some(answer) = send(accounts, method, &format!("/account?id={id}"), &body) else {
            account.perhaps = Some(status);
            return false;
        };
        let answer = answer.expect(200);
        (account.status, account.version) = (status, account.version + 1);
        if !deletes {
            let answered = (answer["status"].as_str(), answer["version"].as_u64());
            assert_eq!(answered, (Some(status.as_str()), Some(u64::from(account.version))), "{answer}");
        }
        true
    }

    pub(super) fn create_card(&mut self, cards: &Http, account: usize) -> bool {
        let account = self.accounts[account];
        let Some(answer) = send(cards, "POST", "/card", &card_of(account.id)) else { return false };
        match (answer.status, answer.body["code"].as_str().unwrap_or_default()) {
            (201, _) => {
                let id = answer.text("id").parse().expect("an id");
                self.cards.push(Card { id, account: account.id, deleted: false, perhaps_deleted: false });
                return true;
            }
            // The view may be behind this writer, never ahead of it.
            (404, "account_not_found") | (403, "account_inactive") => {}
            (403, "account_deleted") => assert!(account.may_be_deleted(), "{account:?}: {}", answer.body),
            _ => panic!("{account:?}: {}", answer.body),
        }
        false
    }

    fn delete_card(&mut self, cards: &Http) -> bool {
        if self.cards.is_empty() {
            return false;
        }
        let place = self.random.below(self.cards.len());
        let card = &mut self.cards[place];
        if card.deleted || card.perhaps_deleted {
            return false;
        }
        let Some(answer) = send(cards, "DELETE", &format!("/card?id={}", card.id), &Value::Null) else {
            card.perhaps_deleted = true;
            return false;
        };
        // It is deleted already if its account is.
        let closed = || self.accounts.iter().any(|account| account.id == card.account && account.may_be_deleted());
        assert!(answer.status == 200 || answer.status == 409 && closed(), "{card:?}: {}", answer.body);
        card.deleted = true;
        answer.status == 200
    }
}

/// `None` where it is not known what came of it: there is no answer, or a 503.
fn send(service: &Http, method: &str, path: &str, body: &Value) -> Option<Answer> {
    let headers = [("Content-Type", "application/json")];
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    service.try_send(method, path, &headers, body).ok().filter(|answer| answer.status != 503)
}
