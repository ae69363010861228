//! The one writer of the card database: each batch of commands becomes one transaction. It alone numbers cards, and it is
//! where a closed account gets no more of them, whatever the view of the asking instance says (design.md C4).

use account_events::AccountId;
use country_code::CountryCode;
use database::{Committer, StoreError};
use jiff::Timestamp;
use process::Clock;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use uuid::{ContextV7, Uuid};

use crate::card::Card;
use crate::error::CardError;
use crate::quarantine::{self, QuarantinedRecord};
use crate::store::{CardNumbering, card_by_id};

/// What a request, or a loop of this service, wants of the database.
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

pub(crate) struct Ledger {
    connection: Connection,
    numbering: CardNumbering,
    clock: Clock,
    /// Keeps ids of one millisecond in order, so that they land on warm pages of the index.
    ids: ContextV7,
    counters: Counters,
}

/// What the next cards continue from: as of the last commit.
#[derive(Debug, Clone, Copy)]
struct Counters {
    last_sequence: u64,
    cards: u64,
}

impl Ledger {
    pub(crate) fn open(connection: Connection, numbering: CardNumbering, clock: Clock) -> rusqlite::Result<Self> {
        let counters = connection.query_row(
            "SELECT (SELECT coalesce(max(sequence), 0) FROM cards), cards FROM ledger",
            [],
            |row| Ok(Counters { last_sequence: row.get::<_, i64>(0)? as u64, cards: row.get::<_, i64>(1)? as u64 }),
        )?;
        Ok(Ledger { connection, numbering, clock, ids: ContextV7::new(), counters })
    }
}

impl Committer for Ledger {
    type Command = Command;
    /// The card that was made, where one was.
    type Outcome = Result<Option<Card>, CardError>;

    fn commit(&mut self, commands: Vec<Command>) -> Result<Vec<Self::Outcome>, StoreError> {
        let now = self.clock.now();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut batch = Batch { transaction, numbering: &self.numbering, ids: &self.ids, now, counters: self.counters };
        let outcomes = commands.into_iter().map(|command| batch.apply(command)).collect::<Result<Vec<_>, _>>()?;
        self.counters = batch.commit()?;
        Ok(outcomes)
    }
}

/// One transaction. Its counters become the ledger's when it is committed; if it is not, nothing has happened.
struct Batch<'a> {
    transaction: Transaction<'a>,
    numbering: &'a CardNumbering,
    ids: &'a ContextV7,
    now: Timestamp,
    counters: Counters,
}

impl Batch<'_> {
    /// The outer error ends the transaction; the inner one is this command's alone, and it has written nothing.
    fn apply(&mut self, command: Command) -> Result<Result<Option<Card>, CardError>, StoreError> {
        match command {
            Command::Create { country, account_id } => match self.count_card(account_id)? {
                true => Ok(Ok(Some(self.create(country, account_id)?))),
                false => Ok(Err(CardError::AccountDeleted)),
            },
            Command::Delete { id } => Ok(self.delete(id)?.map(|()| None)),
            Command::CloseAccounts(accounts) => {
                accounts.into_iter().try_for_each(|account_id| self.close_account(account_id))?;
                Ok(Ok(None))
            }
            Command::Quarantine(records) => {
                records.iter().try_for_each(|record| quarantine::insert(&self.transaction, record, self.now))?;
                Ok(Ok(None))
            }
        }
    }

    /// Counts one more card of an account, unless the account is closed.
    fn count_card(&mut self, account_id: AccountId) -> rusqlite::Result<bool> {
        let mut statement = self.transaction.prepare_cached(
            "INSERT INTO card_accounts VALUES (?, 1, 0)
             ON CONFLICT (account_id) DO UPDATE SET cards = cards + 1 WHERE closed = 0",
        )?;
        Ok(statement.execute([account_id.0.as_bytes()])? == 1)
    }

    fn create(&mut self, country: CountryCode, account_id: AccountId) -> rusqlite::Result<Card> {
        self.counters.last_sequence += 1;
        self.counters.cards += 1;
        let sequence = self.counters.last_sequence;
        let card = Card {
            id: self.new_id(),
            card_number: self.numbering.number(country, sequence),
            country,
            account_id,
            deleted: false,
            creation_timestamp: self.now,
        };
        self.transaction.prepare_cached("INSERT INTO cards VALUES (?, ?, ?, ?, 0, ?)")?.execute(params![
            sequence as i64,
            card.id.as_bytes(),
            card.country.as_str(),
            card.account_id.0.as_bytes(),
            card.creation_timestamp.as_microsecond(),
        ])?;
        Ok(card)
    }

    fn delete(&mut self, id: Uuid) -> rusqlite::Result<Result<(), CardError>> {
        match card_by_id(&self.transaction, self.numbering, id)? {
            None => Ok(Err(CardError::NotFound)),
            Some(card) if card.deleted => Ok(Err(CardError::AlreadyDeleted)),
            Some(_) => {
                let mut statement = self.transaction.prepare_cached("UPDATE cards SET deleted = 1 WHERE id = ?")?;
                statement.execute([id.as_bytes()])?;
                Ok(Ok(()))
            }
        }
    }

    /// Closing an account that is closed changes nothing, so an event may come as often as it likes.
    fn close_account(&mut self, account_id: AccountId) -> rusqlite::Result<()> {
        let mut close = self.transaction.prepare_cached(
            "INSERT INTO card_accounts VALUES (?, 0, 1)
             ON CONFLICT (account_id) DO UPDATE SET closed = 1 WHERE closed = 0",
        )?;
        if close.execute([account_id.0.as_bytes()])? == 1 {
            let mut delete =
                self.transaction.prepare_cached("UPDATE cards SET deleted = 1 WHERE account_id = ? AND deleted = 0")?;
            delete.execute([account_id.0.as_bytes()])?;
        }
        Ok(())
    }

    fn new_id(&self) -> Uuid {
        let seconds = u64::try_from(self.now.as_second()).unwrap_or(0);
        let nanoseconds = u32::try_from(self.now.subsec_nanosecond()).unwrap_or(0);
        Uuid::new_v7(uuid::Timestamp::from_unix(self.ids, seconds, nanoseconds))
    }

    fn commit(self) -> rusqlite::Result<Counters> {
        self.transaction.prepare_cached("UPDATE ledger SET cards = ?")?.execute([self.counters.cards as i64])?;
        self.transaction.commit()?;
        Ok(self.counters)
    }
}
