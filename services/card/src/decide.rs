//! What a batch of commands comes to: which rows to write, and what each request is answered.
//!
//! Pure, and the same for every database: a store loads what the commands name, has them [`decided`], and writes the
//! [`Changes`] in the same transaction. It is here that a closed account gets no more cards, whatever the view of the
//! asking instance says (ARCHITECTURE.md C4).
//!
//! [`decided`]: Batch::decide

use std::collections::{BTreeMap, BTreeSet, HashMap};

use account_events::AccountId;
use country_code::CountryCode;
use jiff::Timestamp;
use uuid::Uuid;

use crate::accounts::quarantine::QuarantinedRecord;
use crate::card::Card;
use crate::card_number::CardNumbering;
use crate::http::error::CardError;

/// What a request, or a loop of this service, wants of the database.
#[derive(Clone)]
pub(crate) enum Command {
    /// A new card, unless the account is closed.
    Create { country: CountryCode, account_id: AccountId },
    /// The end of a card.
    Delete { id: Uuid },
    /// The end of all cards of these accounts, now and for ever.
    CloseAccounts(Vec<AccountId>),
    /// Records for a person to look at.
    Quarantine(Vec<QuarantinedRecord>),
}

/// What a command comes to: the card that was made, where one was.
pub(crate) type Outcome = Result<Option<Card>, CardError>;

/// What the commands name, each in one order everywhere, so that two instances never wait for each other's rows.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// Accounts that are to have a card, or are to be closed.
    pub(crate) accounts: BTreeSet<AccountId>,
    /// Accounts that are to be closed.
    pub(crate) closing: BTreeSet<AccountId>,
    /// Cards that are to be deleted.
    pub(crate) cards: BTreeSet<Uuid>,
    /// How many cards may be made.
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
                Command::Delete { id } => {
                    named.cards.insert(*id);
                }
                Command::CloseAccounts(accounts) => {
                    named.accounts.extend(accounts);
                    named.closing.extend(accounts);
                }
                Command::Quarantine(_) => {}
            }
        }
        named
    }
}

/// What the transaction has to write, in this order.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The sequences of new cards, each with the place of the card among the outcomes.
    pub(crate) created: Vec<(u64, usize)>,
    /// How many new cards each account has.
    pub(crate) counts: BTreeMap<AccountId, i64>,
    /// Cards that are deleted.
    pub(crate) deleted: Vec<Uuid>,
    /// Accounts that were open and are closed: all their cards are deleted, the new ones too.
    pub(crate) closed: BTreeSet<AccountId>,
    /// Records for a person to look at.
    pub(crate) quarantined: Vec<QuarantinedRecord>,
}

impl Changes {
    /// The new cards with their sequences. `outcomes` are those that came with these changes.
    pub(crate) fn created<'a>(&'a self, outcomes: &'a [Outcome]) -> impl Iterator<Item = (u64, &'a Card)> {
        let of_place = |place: usize| outcomes.get(place)?.as_ref().ok()?.as_ref();
        self.created.iter().filter_map(move |(sequence, place)| Some((*sequence, of_place(*place)?)))
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.created.is_empty() && self.deleted.is_empty() && self.closed.is_empty() && self.quarantined.is_empty()
    }
}

/// A batch while it is decided.
pub(crate) struct Batch<'a> {
    pub(crate) numbering: &'a CardNumbering,
    /// The id of the card with this sequence.
    pub(crate) id_of: &'a dyn Fn(u64) -> Uuid,
    pub(crate) now: Timestamp,
    /// The accounts that the commands name and that are closed.
    pub(crate) closed: BTreeSet<AccountId>,
    /// The cards that are to be deleted, where they are there, and whether they are deleted already.
    pub(crate) cards: HashMap<Uuid, bool>,
}

impl Batch<'_> {
    /// Decides `commands` in order, each upon what those before it have changed. A command that breaks a rule changes
    /// nothing. `sequences` has one for each creation, of which a refused one draws none; where it has none, whoever knows them later
    /// fills in the numbers.
    pub(crate) fn decide(
        mut self,
        commands: Vec<Command>,
        mut sequences: impl Iterator<Item = u64>,
    ) -> (Vec<Outcome>, Changes) {
        let mut changes = Changes::default();
        let outcomes = commands.into_iter().enumerate().map(|(place, command)| match command {
            Command::Create { country, account_id } => {
                if self.closed.contains(&account_id) {
                    return Err(CardError::AccountDeleted);
                }
                let sequence = sequences.next();
                let card = self.create(sequence, country, account_id);
                *changes.counts.entry(account_id).or_default() += 1;
                changes.created.push((sequence.unwrap_or_default(), place));
                Ok(Some(card))
            }
            Command::Delete { id } => match self.cards.get_mut(&id) {
                None => Err(CardError::NotFound),
                Some(true) => Err(CardError::AlreadyDeleted),
                Some(deleted) => {
                    *deleted = true;
                    changes.deleted.push(id);
                    Ok(None)
                }
            },
            // Closing an account that is closed changes nothing, so an event may come as often as it likes.
            Command::CloseAccounts(accounts) => {
                changes.closed.extend(accounts.into_iter().filter(|account_id| self.closed.insert(*account_id)));
                Ok(None)
            }
            Command::Quarantine(records) => {
                changes.quarantined.extend(records);
                Ok(None)
            }
        });
        (outcomes.collect(), changes)
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
