//! Decides a batch of commands: the rows to write, and the outcome of each command.
//!
//! Pure, and the same for both databases: a store loads what the commands name, calls [`Batch::decide`], and writes the [`Changes`]
//! in the same transaction. Here a closed account gets no more cards, whatever the view of the instance says
//! (ARCHITECTURE.md C4).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use account_events::AccountId;
use country_code::CountryCode;
use http_server::{IdempotencyKey, KeyedRequest};
use jiff::Timestamp;
use uuid::Uuid;

use crate::accounts::quarantine::{Place, QuarantinedRecord};
use crate::card::Card;
use crate::card_number::CardNumbering;
use crate::error::CardError;
use crate::idempotency::{Done, NewKey, StoredAnswer, StoredKeys};

/// A change to the database that a handler, the feed or the card closer requests. `caller` is who sent the request; `None` while callers
/// are not authenticated.
#[derive(Clone)]
pub(crate) enum Command {
    /// Create a card, unless the account is closed.
    Create { country: CountryCode, account_id: AccountId, caller: Option<Arc<str>>, key: Option<Arc<KeyedRequest>> },
    /// Delete a card.
    Delete { id: Uuid, caller: Option<Arc<str>>, key: Option<Arc<KeyedRequest>> },
    /// Delete all cards of these accounts and refuse new ones.
    CloseAccounts(Vec<AccountId>),
    /// Store records in quarantine.
    Quarantine(Vec<QuarantinedRecord>),
    /// Remove the records at these places from quarantine.
    Acknowledge { places: Vec<Place>, key: Option<Arc<KeyedRequest>> },
}

impl Command {
    /// The idempotency key of the request, if it has one.
    pub(crate) fn key(&self) -> Option<&Arc<KeyedRequest>> {
        match self {
            Command::Create { key, .. } | Command::Delete { key, .. } | Command::Acknowledge { key, .. } => {
                key.as_ref()
            }
            Command::CloseAccounts(_) | Command::Quarantine(_) => None,
        }
    }
}

/// What the command did, or the rule that it breaks.
pub(crate) type Outcome = Result<Done, CardError>;

/// The idempotency keys of `commands`, sorted: with one order in all instances no two wait for each other's keys.
pub(crate) fn named_keys(commands: &[Command]) -> Vec<IdempotencyKey> {
    let mut keys: Vec<_> = commands.iter().filter_map(Command::key).map(|request| request.key.clone()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The rows that the commands name, sorted: with one order in all instances no two wait for each other's rows.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// Accounts of new cards, and accounts to close.
    pub(crate) accounts: BTreeSet<AccountId>,
    /// Accounts to close.
    pub(crate) closing: BTreeSet<AccountId>,
    /// Cards to delete.
    pub(crate) cards: BTreeSet<Uuid>,
    /// The number of cards to create.
    pub(crate) creations: usize,
}

impl Named {
    pub(crate) fn by(commands: &[Command]) -> Self {
        let mut named = Named::default();
        for command in commands {
            match command {
                Command::Create { account_id, .. } => {
                    named.accounts.insert(*account_id);
                    named.creations += 1;
                }
                Command::Delete { id, .. } => {
                    named.cards.insert(*id);
                }
                Command::CloseAccounts(accounts) => {
                    named.accounts.extend(accounts);
                    named.closing.extend(accounts);
                }
                Command::Quarantine(_) | Command::Acknowledge { .. } => {}
            }
        }
        named
    }
}

/// What the transaction writes, in this order.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// New cards with their sequences and callers.
    pub(crate) created: Vec<(u64, Card, Option<Arc<str>>)>,
    /// The number of new cards of each account.
    pub(crate) counts: BTreeMap<AccountId, i64>,
    /// Cards to delete, with the callers.
    pub(crate) deleted: Vec<(Uuid, Option<Arc<str>>)>,
    /// Accounts to close. All their cards are deleted, including new ones.
    pub(crate) closed: BTreeSet<AccountId>,
    /// Places to remove from quarantine.
    pub(crate) acknowledged: BTreeSet<Place>,
    /// Records for the quarantine.
    pub(crate) quarantined: Vec<QuarantinedRecord>,
    /// The keys of the commands that succeeded.
    pub(crate) keys: Vec<NewKey>,
}

impl Changes {
    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.created.is_empty()
            && self.deleted.is_empty()
            && self.closed.is_empty()
            && self.acknowledged.is_empty()
            && self.quarantined.is_empty()
            && self.keys.is_empty()
    }
}

/// The state on which a batch is decided.
pub(crate) struct Batch<'a> {
    pub(crate) numbering: &'a CardNumbering,
    /// The id of the card with this sequence.
    pub(crate) id_of: &'a dyn Fn(u64) -> Uuid,
    pub(crate) now: Timestamp,
    /// Those of the named accounts that are closed.
    pub(crate) closed: BTreeSet<AccountId>,
    /// The cards to delete, if they exist, and whether each is deleted already.
    pub(crate) cards: HashMap<Uuid, bool>,
    /// The stored keys that the commands name.
    pub(crate) keys: StoredKeys,
}

impl Batch<'_> {
    /// Decides `commands` in order, each on the state that the earlier ones leave. A command that breaks a rule changes nothing,
    /// and neither does one whose key is stored or belongs to an earlier command. `sequences` has one sequence for each creation; a
    /// refused creation uses none. If it is empty, the caller fills in sequences and numbers later.
    pub(crate) fn decide(
        mut self,
        commands: Vec<Command>,
        mut sequences: impl Iterator<Item = u64>,
    ) -> (Vec<Outcome>, Changes) {
        let mut changes = Changes::default();
        let outcomes = commands.into_iter().map(|command| {
            let request = command.key().cloned();
            if let Some(request) = &request
                && let Some(stored) = self.keys.get(&request.key)
            {
                return stored.replay(request);
            }
            let card = self.apply(command, &mut sequences, &mut changes)?;
            if let Some(request) = request {
                let stored = StoredAnswer { fingerprint: request.fingerprint, card: card.clone() };
                self.keys.insert(request.key.clone(), stored);
                changes.keys.push(NewKey { request, card_id: card.as_ref().map(|card| card.id) });
            }
            Ok(Done { card, is_replay: false })
        });
        (outcomes.collect(), changes)
    }

    fn apply(
        &mut self,
        command: Command,
        sequences: &mut impl Iterator<Item = u64>,
        changes: &mut Changes,
    ) -> Result<Option<Card>, CardError> {
        match command {
            Command::Create { country, account_id, caller, .. } => {
                if self.closed.contains(&account_id) {
                    return Err(CardError::AccountDeleted);
                }
                let sequence = sequences.next();
                let card = self.create(sequence, country, account_id);
                *changes.counts.entry(account_id).or_default() += 1;
                changes.created.push((sequence.unwrap_or_default(), card.clone(), caller));
                Ok(Some(card))
            }
            Command::Delete { id, caller, .. } => match self.cards.get_mut(&id) {
                None => Err(CardError::NotFound),
                Some(true) => Err(CardError::AlreadyDeleted),
                Some(deleted) => {
                    *deleted = true;
                    changes.deleted.push((id, caller));
                    Ok(None)
                }
            },
            // Closing a closed account changes nothing, so a repeated event does no harm.
            Command::CloseAccounts(accounts) => {
                changes.closed.extend(accounts.into_iter().filter(|account_id| self.closed.insert(*account_id)));
                Ok(None)
            }
            Command::Quarantine(records) => {
                changes.quarantined.extend(records);
                Ok(None)
            }
            Command::Acknowledge { places, .. } => {
                changes.acknowledged.extend(places);
                Ok(None)
            }
        }
    }

    fn create(&self, sequence: Option<u64>, country: CountryCode, account_id: AccountId) -> Card {
        Card {
            id: (self.id_of)(sequence.unwrap_or_default()),
            card_number: sequence.map(|sequence| self.numbering.number(country, sequence)).unwrap_or_default(),
            country,
            account_id,
            deleted: false,
            creation_timestamp: self.now,
        }
    }
}
