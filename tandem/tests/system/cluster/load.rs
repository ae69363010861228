//! Writers that send each request to whichever instance is there, and note what was acknowledged.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use account_events::{AccountId, AccountStatus, Version};
use serde_json::{Value, json};
use test_harness::{Answer, Http, wait_until};
use uuid::Uuid;

use super::{Cluster, any};
use crate::random::Random;
use crate::requests::card_of;

/// Names that every part of the way must take as they are.
const NAMES: [&str; 6] = [
    "John Doe",
    "山田 太郎",
    "Ольга Ёлкина",
    "محمد العربي",
    r#"O'Hara "\"; DROP TABLE account.accounts; --"#,
    "Zoë {} %s <b>&amp; 🦊",
];

/// As many characters as a name may have.
const LONGEST_NAME: usize = 200;

/// One of [`NAMES`], sometimes repeated until it is as long as a name may be.
fn a_name(random: &mut Random) -> String {
    let name = NAMES[random.below(NAMES.len())];
    match random.below(20) {
        0 => name.chars().cycle().take(LONGEST_NAME).collect(),
        _ => name.to_owned(),
    }
}

/// An account as the last acknowledged answer left it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    pub(crate) id: AccountId,
    pub(crate) status: AccountStatus,
    pub(crate) version: Version,
    /// What it is if the request was done to which no answer came, or a 503. It is left alone from then on.
    pub(crate) perhaps: Option<AccountStatus>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Card {
    pub(crate) id: Uuid,
    pub(crate) account: AccountId,
    pub(crate) deleted: bool,
    /// Whether it was asked to be deleted, and no answer came, or a 503.
    pub(crate) perhaps_deleted: bool,
}

/// Writes to accounts and cards of its own, so that it knows what each must be.
pub(crate) struct Writer {
    random: Random,
    pub(crate) accounts: Vec<Account>,
    pub(crate) cards: Vec<Card>,
    /// Creations of accounts to which no answer came, or a 503.
    pub(crate) unknown_accounts: usize,
    /// Requests that were answered with 503.
    pub(crate) refused: Vec<String>,
    /// Requests to which no answer came.
    pub(crate) unanswered: Vec<String>,
    /// How long the slowest answer took, or that there was none.
    pub(crate) slowest: Duration,
}

impl Account {
    pub(crate) fn may_be_deleted(&self) -> bool {
        self.status == AccountStatus::Deleted || self.perhaps == Some(AccountStatus::Deleted)
    }
}

impl Writer {
    pub(crate) fn new(seed: u64) -> Self {
        Writer {
            random: Random::new(seed),
            accounts: Vec::new(),
            cards: Vec::new(),
            unknown_accounts: 0,
            refused: Vec::new(),
            unanswered: Vec::new(),
            slowest: Duration::ZERO,
        }
    }

    /// Makes one request; `true` if it was done.
    pub(crate) fn write(&mut self, cluster: &Cluster) -> bool {
        let (accounts, cards) = (any(&cluster.accounts, &mut self.random), any(&cluster.cards, &mut self.random));
        let (accounts, cards) = (&accounts.http, &cards.http);
        let choice = self.random.below(100);
        if choice < 25 || self.accounts.is_empty() {
            return self.create_account(accounts).is_some();
        }
        let account = self.random.below(self.accounts.len());
        match choice {
            25..55 => self.create_card(cards, account),
            55..70 => self.delete_card(cards),
            70..93 => {
                let blocked = self.accounts[account].status == AccountStatus::Blocked;
                let status = if blocked { AccountStatus::Active } else { AccountStatus::Blocked };
                self.change(accounts, account, status)
            }
            _ => self.change(accounts, account, AccountStatus::Deleted),
        }
    }

    /// The place of the new account.
    pub(crate) fn create_account(&mut self, accounts: &Http) -> Option<usize> {
        let body = json!({ "beholder_name": a_name(&mut self.random), "country_code": "US" });
        let Some(answer) = self.send(accounts, "POST", "/account", &body) else {
            self.unknown_accounts += 1;
            return None;
        };
        let id = answer.expect(201)["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
        self.accounts.push(Account { id, status: AccountStatus::Active, version: 1, perhaps: None });
        Some(self.accounts.len() - 1)
    }

    /// The place of an account that is created there, now or as soon as it can be.
    pub(crate) fn create_account_at(&mut self, accounts: &Http) -> usize {
        wait_until(&format!("an account is created at {}", accounts.address()), || self.create_account(accounts))
    }

    /// Creates a card of this account there, now or as soon as it can be.
    pub(crate) fn create_card_at(&mut self, cards: &Http, account: usize) {
        wait_until(&format!("the account gets a card at {}", cards.address()), || {
            self.create_card(cards, account).then_some(())
        });
    }

    pub(crate) fn change(&mut self, accounts: &Http, account: usize, status: AccountStatus) -> bool {
        let place = account;
        let account = self.accounts[place];
        if account.may_be_deleted() || account.perhaps.is_some() {
            return false;
        }
        let (id, deletes) = (account.id, status == AccountStatus::Deleted);
        let (method, body) =
            if deletes { ("DELETE", Value::Null) } else { ("PUT", json!({ "status": status.as_str() })) };
        let Some(answer) = self.send(accounts, method, &format!("/account?id={id}"), &body) else {
            self.accounts[place].perhaps = Some(status);
            return false;
        };
        let (answer, account) = (answer.expect(200), &mut self.accounts[place]);
        (account.status, account.version) = (status, account.version + 1);
        if !deletes {
            let answered = (answer["status"].as_str(), answer["version"].as_u64());
            assert_eq!(answered, (Some(status.as_str()), Some(u64::from(account.version))), "{answer}");
        }
        true
    }

    pub(crate) fn create_card(&mut self, cards: &Http, account: usize) -> bool {
        let account = self.accounts[account];
        let Some(answer) = self.send(cards, "POST", "/card", &card_of(account.id)) else { return false };
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
        let card = self.cards[place];
        if card.deleted || card.perhaps_deleted {
            return false;
        }
        let Some(answer) = self.send(cards, "DELETE", &format!("/card?id={}", card.id), &Value::Null) else {
            self.cards[place].perhaps_deleted = true;
            return false;
        };
        // It is deleted already if its account is.
        let closed = || self.accounts.iter().any(|account| account.id == card.account && account.may_be_deleted());
        assert!(answer.status == 200 || answer.status == 409 && closed(), "{card:?}: {}", answer.body);
        self.cards[place].deleted = true;
        answer.status == 200
    }

    /// `None` where it is not known what came of it: there is no answer, or a 503.
    fn send(&mut self, service: &Http, method: &str, path: &str, body: &Value) -> Option<Answer> {
        let headers = [("Content-Type", "application/json")];
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let asked = Instant::now();
        let answer = service.try_send(method, path, &headers, body);
        self.slowest = self.slowest.max(asked.elapsed());
        let failed = |what| format!("{method} {path} at {}: {what}", service.address());
        match answer {
            Ok(answer) if answer.status == 503 => {
                assert_ne!(answer.header("retry-after"), "", "{}", answer.raw);
                self.refused.push(failed(answer.raw));
                None
            }
            Ok(answer) => Some(answer),
            Err(error) => {
                self.unanswered.push(failed(error.to_string()));
                None
            }
        }
    }

    /// Every request was done, or refused for what it asked.
    pub(crate) fn check_none_failed(&self) {
        assert!(self.refused.is_empty() && self.unanswered.is_empty(), "{:#?} {:#?}", self.refused, self.unanswered);
    }
}

/// How many requests were acknowledged while [`under_load`].
#[derive(Default)]
pub(crate) struct Load(AtomicUsize);

impl Load {
    pub(crate) fn acknowledged(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits for so many more.
    pub(crate) fn wait_for(&self, more: usize) {
        let target = self.acknowledged() + more;
        wait_until("requests are acknowledged", || (self.acknowledged() >= target).then_some(()));
    }
}

/// Does `work` while each of `writers` writes, one request after the other, with a pause between them.
pub(crate) fn under_load<T>(
    cluster: &Cluster,
    writers: &mut [Writer],
    pause: Duration,
    work: impl FnOnce(&Load) -> T,
) -> T {
    let (load, stop) = (&Load::default(), &AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Also where this thread fails, or the others would never end.
        let _stopped = StopOnDrop(stop);
        for writer in writers {
            scope.spawn(move || {
                let _stopped = StopOnDrop(stop);
                while !stop.load(Ordering::Acquire) {
                    load.0.fetch_add(usize::from(writer.write(cluster)), Ordering::Relaxed);
                    // The pace of the load.
                    std::thread::park_timeout(pause);
                }
            });
        }
        work(load)
    })
}

/// Ends the threads that look at it, however the one that has it ends.
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
