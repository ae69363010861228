//! The one writer of the account database: each batch of commands becomes one transaction with the rows and the events
//! that tell of them (design.md A1). It alone numbers accounts and events, so both are in the order of commit.

use account_events::{AccountId, AccountStatus, EventType};
use country_code::CountryCode;
use database::{Committer, StoreError};
use http_server::IfMatch;
use jiff::Timestamp;
use process::Clock;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use uuid::{ContextV7, Uuid};

use crate::account::{Account, BeholderName, Change};
use crate::error::AccountError;
use crate::outbox::{self, OutboxSignal, PublishedPosition};
use crate::store::{AccountNumbering, account_by_id};

/// What a request wants of the database.
pub(crate) enum Command {
    Create { beholder_name: BeholderName, country_code: CountryCode, traceparent: String },
    Change { id: AccountId, change: Change, if_match: Option<IfMatch>, traceparent: String },
}

pub(crate) struct Ledger {
    connection: Connection,
    numbering: AccountNumbering,
    clock: Clock,
    /// Keeps ids of one millisecond in order, so that they land on warm pages of the index.
    ids: ContextV7,
    outbox: OutboxSignal,
    published: PublishedPosition,
    removed: u64,
    counters: Counters,
}

/// What the next rows continue from: as of the last commit.
#[derive(Debug, Clone, Copy)]
struct Counters {
    last_account_sequence: u64,
    last_outbox_sequence: u64,
    /// By [`AccountStatus`].
    totals: [u64; 3],
}

impl Ledger {
    pub(crate) fn open(
        connection: Connection,
        numbering: AccountNumbering,
        clock: Clock,
        outbox: OutboxSignal,
        published: PublishedPosition,
    ) -> rusqlite::Result<Self> {
        let counters = connection.query_row(
            "SELECT (SELECT coalesce(max(sequence), 0) FROM accounts), last_outbox_sequence, active, blocked, deleted
             FROM ledger",
            [],
            |row| {
                let count = |column| row.get::<_, i64>(column).map(|count| count as u64);
                Ok(Counters {
                    last_account_sequence: count(0)?,
                    last_outbox_sequence: count(1)?,
                    totals: [count(2)?, count(3)?, count(4)?],
                })
            },
        )?;
        Ok(Ledger { connection, numbering, clock, ids: ContextV7::new(), outbox, published, removed: 0, counters })
    }
}

impl Committer for Ledger {
    type Command = Command;
    type Outcome = Result<Account, AccountError>;

    fn commit(&mut self, commands: Vec<Command>) -> Result<Vec<Self::Outcome>, StoreError> {
        let now = self.clock.now();
        let published = self.published.get();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut batch = Batch { transaction, numbering: &self.numbering, ids: &self.ids, now, counters: self.counters };
        let outcomes = commands.into_iter().map(|command| batch.apply(command)).collect::<Result<Vec<_>, _>>()?;
        if published > self.removed {
            outbox::remove_published(&batch.transaction, published)?;
        }
        let counters = batch.commit()?;
        if counters.last_outbox_sequence != self.counters.last_outbox_sequence {
            self.outbox.notify();
        }
        self.counters = counters;
        self.removed = published;
        Ok(outcomes)
    }

    /// Removes what was published since the last commit, if nothing else gave the occasion.
    fn idle(&mut self) -> Result<(), StoreError> {
        let published = self.published.get();
        if published > self.removed {
            outbox::remove_published(&self.connection, published)?;
            self.removed = published;
        }
        Ok(())
    }
}

/// One transaction. Its counters become the ledger's when it is committed; if it is not, nothing has happened.
struct Batch<'a> {
    transaction: Transaction<'a>,
    numbering: &'a AccountNumbering,
    ids: &'a ContextV7,
    now: Timestamp,
    counters: Counters,
}

impl Batch<'_> {
    /// The outer error ends the transaction; the inner one is this command's alone, and it has written nothing.
    fn apply(&mut self, command: Command) -> Result<Result<Account, AccountError>, StoreError> {
        match command {
            Command::Create { beholder_name, country_code, traceparent } => {
                Ok(Ok(self.create(beholder_name, country_code, &traceparent)?))
            }
            Command::Change { id, change, if_match, traceparent } => {
                let Some(account) = account_by_id(&self.transaction, self.numbering, id)? else {
                    return Ok(Err(AccountError::NotFound));
                };
                match account.changed(change, if_match.as_ref(), self.now) {
                    Ok(changed) => Ok(Ok(self.update(&account, changed, &traceparent)?)),
                    Err(refused) => Ok(Err(refused)),
                }
            }
        }
    }

    fn create(
        &mut self,
        beholder_name: BeholderName,
        country_code: CountryCode,
        traceparent: &str,
    ) -> rusqlite::Result<Account> {
        self.counters.last_account_sequence += 1;
        let sequence = self.counters.last_account_sequence;
        let account = Account {
            id: AccountId(self.new_id()),
            account_number: self.numbering.number(sequence),
            beholder_name,
            country_code,
            status: AccountStatus::Active,
            version: 1,
            created_at: self.now,
            updated_at: self.now,
        };
        self.transaction.prepare_cached("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?.execute(params![
            sequence as i64,
            account.id.0.as_bytes(),
            account.beholder_name.as_str(),
            account.country_code.as_str(),
            account.status.as_str(),
            account.version,
            account.created_at.as_microsecond(),
            account.updated_at.as_microsecond(),
        ])?;
        self.counters.totals[account.status as usize] += 1;
        self.tell(EventType::Created, &account, traceparent)?;
        Ok(account)
    }

    fn update(&mut self, before: &Account, account: Account, traceparent: &str) -> rusqlite::Result<Account> {
        if account.version == before.version {
            return Ok(account);
        }
        let mut statement = self.transaction.prepare_cached(
            "UPDATE accounts SET beholder_name = ?, country_code = ?, status = ?, version = ?, updated_at = ? WHERE id = ?",
        )?;
        statement.execute(params![
            account.beholder_name.as_str(),
            account.country_code.as_str(),
            account.status.as_str(),
            account.version,
            account.updated_at.as_microsecond(),
            account.id.0.as_bytes(),
        ])?;
        drop(statement);
        // Only a change of status is an event (api.md).
        if account.status != before.status {
            self.counters.totals[before.status as usize] -= 1;
            self.counters.totals[account.status as usize] += 1;
            self.tell(EventType::StatusChanged, &account, traceparent)?;
        }
        Ok(account)
    }

    fn tell(&mut self, event_type: EventType, account: &Account, traceparent: &str) -> rusqlite::Result<()> {
        let now = u64::try_from(self.now.as_microsecond()).unwrap_or(0);
        let sequence = now.max(self.counters.last_outbox_sequence + 1);
        self.counters.last_outbox_sequence = sequence;
        outbox::insert(&self.transaction, sequence, event_type, account, traceparent)
    }

    fn new_id(&self) -> Uuid {
        let seconds = u64::try_from(self.now.as_second()).unwrap_or(0);
        let nanoseconds = u32::try_from(self.now.subsec_nanosecond()).unwrap_or(0);
        Uuid::new_v7(uuid::Timestamp::from_unix(self.ids, seconds, nanoseconds))
    }

    fn commit(self) -> rusqlite::Result<Counters> {
        let [active, blocked, deleted] = self.counters.totals.map(|total| total as i64);
        let mut statement = self
            .transaction
            .prepare_cached("UPDATE ledger SET active = ?, blocked = ?, deleted = ?, last_outbox_sequence = ?")?;
        statement.execute(params![active, blocked, deleted, self.counters.last_outbox_sequence as i64])?;
        drop(statement);
        self.transaction.commit()?;
        Ok(self.counters)
    }
}
