//! Decides a batch of commands: the rows and events to write, and the outcome of each command.
//!
//! Pure, and the same for both databases: a store loads the accounts that the commands name, calls [`Batch::decide`], and writes
//! the [`Changes`] in the same transaction (ARCHITECTURE.md A1).

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use account_events::digest::Republication;
use account_events::{AccountEvent, AccountId, AccountStatus, Envelope, EventType, LastEvent, TraceParent, Version};
use country_code::CountryCode;
use event_log::Record;
use http_server::{IdempotencyKey, KeyedRequest};
use jiff::Timestamp;
use uuid::Uuid;

use crate::account::{Account, BeholderName, Change, Precondition};
use crate::account_number::AccountNumbering;
use crate::error::AccountError;
use crate::history::{ChangeType, HistoryEntry};
use crate::idempotency::{Done, NewKey, StoredAnswer, StoredKeys};
use crate::outbox::NextEvents;

/// A request that changes the database. `caller` is who sent it; `None` while callers are not authenticated.
#[derive(Clone)]
pub(crate) enum Command {
    Create {
        beholder_name: BeholderName,
        country_code: CountryCode,
        trace: TraceParent,
        caller: Option<Arc<str>>,
        key: Option<Arc<KeyedRequest>>,
    },
    Change {
        id: AccountId,
        change: Change,
        precondition: Precondition,
        trace: TraceParent,
        caller: Option<Arc<str>>,
        key: Option<Arc<KeyedRequest>>,
    },
    /// Publishes the state of an account again, for `tandem verify --repair`.
    Republish { republication: Republication, trace: TraceParent, caller: Option<Arc<str>> },
    /// Erases the name of a deleted account, there and in the answers that are stored under `keys`.
    Erase { id: AccountId, keys: Vec<IdempotencyKey>, caller: Option<Arc<str>> },
}

impl Command {
    /// The idempotency key of the request, if it has one.
    pub(crate) fn key(&self) -> Option<&Arc<KeyedRequest>> {
        match self {
            Command::Create { key, .. } | Command::Change { key, .. } => key.as_ref(),
            Command::Republish { .. } | Command::Erase { .. } => None,
        }
    }
}

/// The account after the command, or the rule that the command breaks.
pub(crate) type Outcome = Result<Done, AccountError>;

/// The idempotency keys of `commands`, sorted: with one order in all instances no two wait for each other's keys.
pub(crate) fn named_keys(commands: &[Command]) -> Vec<IdempotencyKey> {
    let of_requests = commands.iter().filter_map(Command::key).map(|request| &request.key);
    let of_erasures = commands.iter().flat_map(|command| match command {
        Command::Erase { keys, .. } => keys.as_slice(),
        _ => &[],
    });
    let mut keys: Vec<_> = of_requests.chain(of_erasures).cloned().collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The accounts that `commands` may change, sorted: with one order in all instances no two wait for each other's rows.
pub(crate) fn named_accounts(commands: &[Command]) -> Vec<AccountId> {
    let ids = commands.iter().filter_map(|command| match command {
        Command::Create { .. } => None,
        Command::Change { id, .. } | Command::Erase { id, .. } => Some(*id),
        Command::Republish { republication, .. } => Some(republication.id),
    });
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The number of accounts that `commands` create.
pub(crate) fn creations(commands: &[Command]) -> usize {
    commands.iter().filter(|command| matches!(command, Command::Create { .. })).count()
}

/// The rows and events that the transaction writes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// New accounts with their sequences and callers.
    pub(crate) created: Vec<(u64, Account, Option<Arc<str>>)>,
    /// Existing accounts in their new state, with their sequences.
    pub(crate) updated: Vec<(u64, Account)>,
    /// An entry for each change of an existing account, with the account's sequence.
    pub(crate) history: Vec<(u64, HistoryEntry)>,
    /// The events in order.
    pub(crate) events: Vec<OutboxEvent>,
    /// The change in the number of accounts with each [`AccountStatus`].
    pub(crate) totals: [i64; 3],
    /// The keys of the commands that succeeded.
    pub(crate) keys: Vec<NewKey>,
}

/// A random number that is not 0, for [`OutboxEvent::of_state`].
pub(crate) fn new_page_id() -> u64 {
    Uuid::new_v4().as_u64_pair().0.max(1)
}

/// An event in the outbox.
#[derive(Debug)]
pub(crate) struct OutboxEvent {
    pub(crate) event: AccountEvent,
    pub(crate) version: Version,
    pub(crate) occurred_at: Timestamp,
    pub(crate) trace: TraceParent,
}

impl OutboxEvent {
    /// The event that repeats the current state of `account` in a resync. It belongs to no request, so its trace is named after the
    /// account. `page_id`, a random number for each page, makes repeated records differ.
    pub(crate) fn of_state(account: &Account, page_id: u64) -> Self {
        let trace = TraceParent { trace_id: account.id.0.as_u128().max(1), parent_id: page_id, flags: 0 };
        Self::new(account.id, account.event_version, account.status, account.updated_at, trace)
    }

    /// The event of an account's change to this version and status.
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

    /// What identifies the event in the owner record.
    pub(crate) fn identity(&self) -> LastEvent {
        let (account_id, occurred_at) = (self.event.account_id, self.occurred_at.as_microsecond());
        LastEvent { account_id, version: self.version, occurred_at }
    }

    /// The event as a record.
    pub(crate) fn record(&self) -> Record {
        let mut record = Record::default();
        self.envelope(&self.occurred_at.to_string(), &self.trace.to_string()).encode_into(&mut record);
        record
    }

    fn envelope<'a>(&self, time: &'a str, traceparent: &'a str) -> Envelope<'a> {
        Envelope { event: self.event, version: self.version, time, traceparent }
    }
}

/// Encodes events as records in memory that is reused. Without reuse the relay spent a fifth of its time in the allocator.
#[derive(Default)]
pub(crate) struct RecordBuffer(Vec<Record>);

impl RecordBuffer {
    /// Encodes `events`, the last of which has the sequence `position`; `None` if there are none. The events of a transaction share one
    /// time, which is formatted once.
    pub(crate) fn encode<'a>(
        &mut self,
        events: impl IntoIterator<Item = &'a OutboxEvent>,
        position: u64,
    ) -> Option<NextEvents<'_>> {
        let mut written: Option<(Timestamp, String)> = None;
        let (mut count, mut trace, mut last) = (0, String::new(), None);
        for event in events {
            last = Some(event);
            let at = event.occurred_at;
            let (_, time) = match &mut written {
                Some(written) if written.0 == at => written,
                other => other.insert((at, at.to_string())),
            };
            if count == self.0.len() {
                self.0.push(Record::default());
            }
            trace.clear();
            // Writing to a string never fails.
            let _ = write!(trace, "{}", event.trace);
            event.envelope(time, &trace).encode_into(&mut self.0[count]);
            count += 1;
        }
        Some(NextEvents { records: &self.0[..count], position, last_event: last?.identity() })
    }
}

impl Changes {
    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.created.is_empty() && self.updated.is_empty() && self.events.is_empty() && self.keys.is_empty()
    }
}

/// The state on which a batch is decided.
pub(crate) struct Batch<'a> {
    pub(crate) numbering: &'a AccountNumbering,
    /// The id of the account with this sequence.
    pub(crate) id_of: &'a dyn Fn(u64) -> Uuid,
    pub(crate) now: Timestamp,
    /// The accounts that the commands name, if they exist, with their sequences.
    pub(crate) accounts: HashMap<AccountId, (u64, Account)>,
    /// The stored keys that the commands name.
    pub(crate) keys: StoredKeys,
}

impl Batch<'_> {
    /// Decides `commands` in order, each on the state that the earlier ones leave. A command that breaks a rule changes nothing,
    /// and neither does one whose key is stored or belongs to an earlier command. `sequences` has one sequence for each creation. If
    /// it is empty, the caller fills in sequences and numbers later.
    pub(crate) fn decide(
        mut self,
        commands: Vec<Command>,
        mut sequences: impl Iterator<Item = u64>,
    ) -> (Vec<Outcome>, Changes) {
        let mut changes = Changes::default();
        let mut changed = Vec::new();
        let outcomes = commands.into_iter().map(|command| {
            let request = command.key().cloned();
            if let Some(request) = &request
                && let Some(stored) = self.keys.get(&request.key)
            {
                return stored.replay(request);
            }
            let account = self.apply(command, &mut sequences, &mut changes, &mut changed)?;
            if let Some(request) = request {
                let stored = StoredAnswer { fingerprint: request.fingerprint, account: account.clone() };
                self.keys.insert(request.key.clone(), stored);
                changes.keys.push(NewKey { request, account: account.clone() });
            }
            Ok(Done { account, is_replay: false })
        });
        let outcomes = outcomes.collect();
        changed.sort_unstable();
        changed.dedup();
        changes.updated = changed.into_iter().filter_map(|id| self.accounts.remove(&id)).collect();
        (outcomes, changes)
    }

    fn apply(
        &mut self,
        command: Command,
        sequences: &mut impl Iterator<Item = u64>,
        changes: &mut Changes,
        changed: &mut Vec<AccountId>,
    ) -> Result<Account, AccountError> {
        match command {
            Command::Create { beholder_name, country_code, trace, caller, .. } => {
                let sequence = sequences.next();
                let account = self.create(sequence, beholder_name, country_code);
                changes.totals[account.status as usize] += 1;
                changes.events.push(self.event(&account, trace));
                changes.created.push((sequence.unwrap_or_default(), account.clone(), caller));
                Ok(account)
            }
            Command::Change { id, change, precondition, trace, caller, .. } => {
                let (sequence, before) = self.accounts.get(&id).ok_or(AccountError::NotFound)?;
                let account = before.changed(change, &precondition, self.now)?;
                // Only a change of status is an event (docs/api.md, "The event").
                if account.status != before.status {
                    changes.totals[before.status as usize] -= 1;
                    changes.totals[account.status as usize] += 1;
                    changes.events.push(self.event(&account, trace));
                }
                if account.version != before.version {
                    let sequence = *sequence;
                    changes.history.push((sequence, HistoryEntry::of_change(before, &account, caller.as_deref())));
                    changed.push(id);
                    self.accounts.insert(id, (sequence, account.clone()));
                }
                Ok(account)
            }
            Command::Republish { republication, trace, caller } => {
                let (sequence, before) = self.accounts.get(&republication.id).ok_or(AccountError::NotFound)?;
                let account = before.republished(republication, self.now);
                changes.totals[before.status as usize] -= 1;
                changes.totals[account.status as usize] += 1;
                changes.events.push(self.event(&account, trace));
                if account.version != before.version {
                    let sequence = *sequence;
                    let entry = HistoryEntry::new(ChangeType::Recovered, String::new(), &account, caller.as_deref());
                    changes.history.push((sequence, entry));
                    changed.push(account.id);
                    self.accounts.insert(account.id, (sequence, account.clone()));
                }
                Ok(account)
            }
            Command::Erase { id, keys, caller } => {
                let (sequence, before) = self.accounts.get(&id).ok_or(AccountError::NotFound)?;
                let account = before.erased(self.now)?;
                if account.version != before.version {
                    let sequence = *sequence;
                    changes.history.push((sequence, HistoryEntry::of_erasure(&account, caller.as_deref())));
                    changed.push(id);
                    self.accounts.insert(id, (sequence, account.clone()));
                }
                for key in keys {
                    if let Some(stored) = self.keys.get_mut(&key)
                        && stored.account.id == id
                        && stored.account.beholder_name != account.beholder_name
                    {
                        stored.account.beholder_name = account.beholder_name.clone();
                        let request = Arc::new(KeyedRequest { key, fingerprint: stored.fingerprint });
                        changes.keys.push(NewKey { request, account: stored.account.clone() });
                    }
                }
                Ok(account)
            }
        }
    }

    fn create(&self, sequence: Option<u64>, beholder_name: BeholderName, country_code: CountryCode) -> Account {
        Account {
            id: AccountId((self.id_of)(sequence.unwrap_or_default())),
            account_number: sequence.map(|sequence| self.numbering.number(sequence)).unwrap_or_default(),
            beholder_name,
            country_code,
            status: AccountStatus::Active,
            version: 1,
            event_version: 1,
            created_at: self.now,
            updated_at: self.now,
        }
    }

    fn event(&self, account: &Account, trace: TraceParent) -> OutboxEvent {
        OutboxEvent::new(account.id, account.event_version, account.status, self.now, trace)
    }
}
