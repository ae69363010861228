//! What a batch of commands comes to: which rows to write, which events tell of them, and what each request is answered.
//!
//! Pure, and the same for every database: a store loads the accounts that the commands name, has them [`decided`], and
//! writes the [`Changes`] in the same transaction (ARCHITECTURE.md A1).
//!
//! [`decided`]: Batch::decide

use std::collections::HashMap;
use std::fmt::Write;

use account_events::{AccountEvent, AccountId, AccountStatus, Envelope, EventType, TraceParent, Version};
use country_code::CountryCode;
use event_log::Record;
use jiff::Timestamp;
use uuid::Uuid;

use crate::account::{Account, BeholderName, Change, Precondition};
use crate::account_number::AccountNumbering;
use crate::http::error::AccountError;

/// What a request wants of the database.
#[derive(Clone)]
pub(crate) enum Command {
    Create { beholder_name: BeholderName, country_code: CountryCode, trace: TraceParent },
    Change { id: AccountId, change: Change, precondition: Precondition, trace: TraceParent },
}

/// What a request comes to.
pub(crate) type Outcome = Result<Account, AccountError>;

/// The accounts that `commands` may change.
pub(crate) fn named_accounts(commands: &[Command]) -> Vec<AccountId> {
    let ids = commands.iter().filter_map(|command| match command {
        Command::Create { .. } => None,
        Command::Change { id, .. } => Some(*id),
    });
    let mut ids: Vec<_> = ids.collect();
    // In one order everywhere, so that two instances never wait for each other's rows.
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// How many accounts `commands` may create.
pub(crate) fn creations(commands: &[Command]) -> usize {
    commands.iter().filter(|command| matches!(command, Command::Create { .. })).count()
}

/// What the transaction has to write.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The sequences of new accounts, each with the place of the account among the outcomes.
    pub(crate) created: Vec<(u64, usize)>,
    /// Accounts that were there, as they are now.
    pub(crate) updated: Vec<Account>,
    /// In the order they happened.
    pub(crate) events: Vec<OutboxEvent>,
    /// How many more accounts of each [`AccountStatus`] there are.
    pub(crate) totals: [i64; 3],
}

/// What stands for a page of accounts in traces: a number that no other page had, not 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TraceSpan(u64);

impl TraceSpan {
    pub(crate) fn new() -> Self {
        TraceSpan(Uuid::new_v4().as_u64_pair().0.max(1))
    }
}

/// An event as the outbox keeps it.
#[derive(Debug)]
pub(crate) struct OutboxEvent {
    pub(crate) event: AccountEvent,
    pub(crate) version: Version,
    pub(crate) occurred_at: Timestamp,
    pub(crate) trace: TraceParent,
}

impl OutboxEvent {
    /// The event that tells the state `account` has now, for the `page` of accounts that is published with it. It stands in no
    /// request's trace, so it begins one of its own, named after the account; its parent is the page, so that no two tellings
    /// of one state are the same record.
    pub(crate) fn of_state(account: &Account, page: TraceSpan) -> Self {
        let trace = TraceParent { trace_id: account.id.0.as_u128().max(1), parent_id: page.0, flags: 0 };
        Self::new(account.id, account.version, account.status, account.updated_at, trace)
    }

    /// The event that brings an account to this version and status.
    pub(crate) fn new(
        account_id: AccountId,
        version: Version,
        status: AccountStatus,
        occurred_at: Timestamp,
        trace: TraceParent,
    ) -> Self {
        let event_type = EventType::of_version(version);
        let event = AccountEvent { event_type, account_id, status, version: Some(version) };
        OutboxEvent { event, version, occurred_at, trace }
    }

    /// The record that tells of it.
    pub(crate) fn record(&self) -> Record {
        let mut record = Record::default();
        self.envelope(&self.occurred_at.to_string(), &self.trace.to_string()).encode_into(&mut record);
        record
    }

    fn envelope<'a>(&self, time: &'a str, traceparent: &'a str) -> Envelope<'a> {
        Envelope { event: self.event, version: self.version, time, traceparent }
    }
}

/// The records of the events that are published next, in memory that those before them had. With an allocation for each
/// part of each record the relay spent a fifth of its time in the allocator.
#[derive(Default)]
pub(crate) struct RecordBuffer(Vec<Record>);

impl RecordBuffer {
    /// The records that tell of `events`. Those of a transaction have one time, which is written out once.
    pub(crate) fn encode<'a>(&mut self, events: impl IntoIterator<Item = &'a OutboxEvent>) -> &[Record] {
        let mut written: Option<(Timestamp, String)> = None;
        let (mut count, mut trace) = (0, String::new());
        for event in events {
            let at = event.occurred_at;
            let (_, time) = match &mut written {
                Some(written) if written.0 == at => written,
                other => other.insert((at, at.to_string())),
            };
            if count == self.0.len() {
                self.0.push(Record::default());
            }
            trace.clear();
            // Writing to a string does not fail.
            let _ = write!(trace, "{}", event.trace);
            event.envelope(time, &trace).encode_into(&mut self.0[count]);
            // An account's first event comes before whatever else is told of it.
            self.0[count].is_first_of_key = event.event.event_type == EventType::Created;
            count += 1;
        }
        &self.0[..count]
    }
}

impl Changes {
    /// The new accounts with their sequences. `outcomes` are those that came with these changes.
    pub(crate) fn created<'a>(&'a self, outcomes: &'a [Outcome]) -> impl Iterator<Item = (u64, &'a Account)> {
        let of_place = |place: usize| outcomes.get(place)?.as_ref().ok();
        self.created.iter().filter_map(move |(sequence, place)| Some((*sequence, of_place(*place)?)))
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.created.is_empty() && self.updated.is_empty() && self.events.is_empty()
    }
}

/// A batch while it is decided.
pub(crate) struct Batch<'a> {
    pub(crate) numbering: &'a AccountNumbering,
    /// The id of the account with this sequence.
    pub(crate) id_of: &'a dyn Fn(u64) -> Uuid,
    pub(crate) now: Timestamp,
    /// The accounts that the commands name, where they are there.
    pub(crate) accounts: HashMap<AccountId, Account>,
}

impl Batch<'_> {
    /// Decides `commands` in order, each upon what those before it have changed. A command that breaks a rule changes
    /// nothing. `sequences` has one for each creation; where it has none, whoever knows them later fills in the numbers.
    pub(crate) fn decide(
        mut self,
        commands: Vec<Command>,
        mut sequences: impl Iterator<Item = u64>,
    ) -> (Vec<Outcome>, Changes) {
        let mut changes = Changes::default();
        let mut changed = Vec::new();
        let outcomes = commands.into_iter().enumerate().map(|(place, command)| match command {
            Command::Create { beholder_name, country_code, trace } => {
                let sequence = sequences.next();
                let account = self.create(sequence, beholder_name, country_code);
                changes.totals[account.status as usize] += 1;
                changes.events.push(self.event(&account, trace));
                changes.created.push((sequence.unwrap_or_default(), place));
                Ok(account)
            }
            Command::Change { id, change, precondition, trace } => {
                let before = self.accounts.get(&id).ok_or(AccountError::NotFound)?;
                let account = before.changed(change, &precondition, self.now)?;
                // Only a change of status is an event (docs/api.md, "The event").
                if account.status != before.status {
                    changes.totals[before.status as usize] -= 1;
                    changes.totals[account.status as usize] += 1;
                    changes.events.push(self.event(&account, trace));
                }
                if account.version != before.version {
                    changed.push(id);
                    self.accounts.insert(id, account.clone());
                }
                Ok(account)
            }
        });
        let outcomes = outcomes.collect();
        changed.sort_unstable();
        changed.dedup();
        changes.updated = changed.into_iter().filter_map(|id| self.accounts.remove(&id)).collect();
        (outcomes, changes)
    }

    fn create(&self, sequence: Option<u64>, beholder_name: BeholderName, country_code: CountryCode) -> Account {
        Account {
            id: AccountId((self.id_of)(sequence.unwrap_or_default())),
            account_number: sequence.map(|sequence| self.numbering.number(sequence)).unwrap_or_default(),
            beholder_name,
            country_code,
            status: AccountStatus::Active,
            version: 1,
            created_at: self.now,
            updated_at: self.now,
        }
    }

    fn event(&self, account: &Account, trace: TraceParent) -> OutboxEvent {
        OutboxEvent::new(account.id, account.version, account.status, self.now, trace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_creation_is_said_to_be_the_first_of_its_key_unless_it_is_told_again() {
        let trace = TraceParent { trace_id: 1, parent_id: 1, flags: 0 };
        let event = |version| {
            let (id, at) = (AccountId(Uuid::from_u128(1)), Timestamp::UNIX_EPOCH);
            OutboxEvent::new(id, version, AccountStatus::Active, at, trace)
        };
        let mut buffer = RecordBuffer::default();
        let mut said = |versions: [Version; 2]| -> Vec<_> {
            buffer.encode(&versions.map(event)).iter().map(|record| record.is_first_of_key).collect()
        };
        assert_eq!(said([1, 2]), [true, false]);
        assert_eq!(said([2, 1]), [false, true], "whatever the memory was used for before");
        assert!(!event(1).record().is_first_of_key, "a page tells it again");
    }
}
