//! What a writer asked for, and what it may therefore expect to find.

use std::collections::BTreeMap;

use account_events::{AccountId, AccountStatus, Version};
use serde_json::{Value, json};
use test_harness::{Answer, Http};
use uuid::Uuid;

use crate::random::Random;
use crate::requests::{card_of, error, john_doe};

/// An account as the last answer left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) status: AccountStatus,
    pub(super) version: Version,
    /// The version of its last event: a change of the name is none.
    pub(super) told: Version,
    /// How many events it has had.
    pub(super) events: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Card {
    pub(super) account: AccountId,
    pub(super) deleted: bool,
}

/// The one request that the kill left without an answer: it may have been done or not.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unanswered {
    CreateAccount,
    /// What the account is if it was done.
    ChangeAccount(AccountId, Account),
    CreateCard,
    DeleteCard(Uuid),
}

/// Writes to accounts and cards of its own, so that it knows what each must be.
pub(super) struct Writer {
    random: Random,
    pub(super) accounts: BTreeMap<AccountId, Account>,
    pub(super) cards: BTreeMap<Uuid, Card>,
    pub(super) unanswered: Option<Unanswered>,
    /// Accounts of earlier rounds: their events are in the log since before this start.
    settled: Vec<AccountId>,
}

impl Account {
    pub(super) fn created() -> Self {
        Account { status: AccountStatus::Active, version: 1, told: 1, events: 1 }
    }

    /// The account with another status, or, without one, another name.
    fn changed(self, status: Option<AccountStatus>) -> Self {
        let version = self.version + 1;
        match status {
            None => Account { version, ..self },
            Some(status) if status == self.status => self,
            Some(status) => Account { status, version, told: version, events: self.events + 1 },
        }
    }
}

impl Writer {
    pub(super) fn new(seed: u64) -> Self {
        Writer {
            random: Random::new(seed),
            accounts: BTreeMap::new(),
            cards: BTreeMap::new(),
            unanswered: None,
            settled: Vec::new(),
        }
    }

    /// Takes what is there now for settled. For the end of a round.
    pub(super) fn settle(&mut self) {
        self.settled = self.accounts.keys().copied().collect();
        self.unanswered = None;
    }

    /// One of the accounts of which it is known what they are.
    pub(super) fn sample(&self, random: &mut Random) -> Option<(AccountId, AccountStatus)> {
        let known: Vec<_> = self.accounts.iter().map(|(id, account)| (*id, account.status)).collect();
        let (id, status) = *random.pick(&known)?;
        let unsure = matches!(self.unanswered, Some(Unanswered::ChangeAccount(changed, _)) if changed == id);
        (!unsure).then_some((id, status))
    }

    /// Makes one request and notes what came of it; `false` if it was not answered.
    pub(super) fn write(&mut self, accounts: &Http, cards: &Http) -> bool {
        let account = self.random.pick(&self.accounts.keys().copied().collect::<Vec<_>>()).copied();
        match (self.random.below(100), account) {
            (0..30, _) | (_, None) => self.create_account(accounts),
            (30..60, Some(id)) => self.create_card(cards, id),
            (60..70, Some(id)) => self.change(accounts, id, Some(AccountStatus::Blocked)),
            (70..80, Some(id)) => self.change(accounts, id, Some(AccountStatus::Active)),
            (80..87, Some(id)) => self.change(accounts, id, None),
            (87..92, Some(id)) => self.change(accounts, id, Some(AccountStatus::Deleted)),
            _ => self.delete_card(cards),
        }
    }

    fn create_account(&mut self, accounts: &Http) -> bool {
        let Some(answer) = post(accounts, "/account", &john_doe()) else {
            return self.left(Unanswered::CreateAccount);
        };
        let account = answer.expect(201);
        let id = account["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
        let new = Account::created();
        assert!(self.accounts.insert(id, new).is_none(), "an id is given once: {account}");
        true
    }

    fn change(&mut self, accounts: &Http, id: AccountId, status: Option<AccountStatus>) -> bool {
        let before = self.accounts[&id];
        let after = before.changed(status);
        let path = format!("/account?id={id}");
        let answer = match status {
            Some(AccountStatus::Deleted) => accounts.try_send("DELETE", &path, &[], Vec::new()).ok(),
            Some(status) => send(accounts, "PUT", &path, &json!({ "status": status.as_str() })),
            None => send(accounts, "PUT", &path, &json!({ "beholder_name": format!("Jane {}", self.random.next()) })),
        };
        let deleted = before.status == AccountStatus::Deleted;
        let Some(answer) = answer else {
            return self.left(Unanswered::ChangeAccount(id, if deleted { before } else { after }));
        };
        if deleted {
            answer.expect(409);
            return true;
        }
        let account = answer.expect(200);
        if after.status != AccountStatus::Deleted {
            let answered = (account["status"].as_str(), account["version"].as_u64());
            assert_eq!(answered, (Some(after.status.as_str()), Some(u64::from(after.version))), "{account}");
        }
        self.accounts.insert(id, after);
        true
    }

    fn create_card(&mut self, cards: &Http, account: AccountId) -> bool {
        let Some(answer) = post(cards, "/card", &card_of(account)) else { return self.left(Unanswered::CreateCard) };
        match answer.status {
            201 => {
                let id = answer.text("id").parse().expect("an id");
                assert!(self.cards.insert(id, Card { account, deleted: false }).is_none(), "an id is given once");
            }
            // The view may be behind this writer, but an account from before the start is in it (ARCHITECTURE.md C3).
            404 => assert!(!self.settled.contains(&account), "{account}: {}", answer.body),
            403 | 503 => assert!(error(&answer).contains("account"), "{}", answer.body),
            status => panic!("{status}: {}", answer.body),
        }
        true
    }

    fn delete_card(&mut self, cards: &Http) -> bool {
        let Some(id) = self.random.pick(&self.cards.keys().copied().collect::<Vec<_>>()).copied() else { return true };
        let Ok(answer) = cards.try_send("DELETE", &format!("/card?id={id}"), &[], Vec::new()) else {
            return self.left(Unanswered::DeleteCard(id));
        };
        // It is deleted already if its account is, or if this writer has done it.
        assert!(matches!(answer.status, 200 | 409), "{}", answer.body);
        self.cards.get_mut(&id).expect("a known card").deleted = true;
        true
    }

    fn left(&mut self, unanswered: Unanswered) -> bool {
        self.unanswered = Some(unanswered);
        false
    }
}

fn post(service: &Http, path: &str, body: &Value) -> Option<Answer> {
    send(service, "POST", path, body)
}

fn send(service: &Http, method: &str, path: &str, body: &Value) -> Option<Answer> {
    let headers = [("Content-Type", "application/json")];
    service.try_send(method, path, &headers, body.to_string().into_bytes()).ok()
}
