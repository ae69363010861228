//! The accounts in a SQLite file, for one instance. Its writer alone numbers accounts and events, so both are in the order
//! of commit.

use std::collections::HashMap;
use std::path::Path;

use account_events::{AccountEvent, AccountId, AccountStatus, EventType};
use database::sqlite::{ReadPool, Schema, SqliteFile};
use database::{Committer, GroupCommit, OpenError, StoreError};
use event_log::{LogError, Record};
use jiff::Timestamp;
use numbering::{Numbering, TimeOrderedIds};
use process::Clock;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use uuid::Uuid;

use super::{Database, Opened, Page, PageRequest, Store};
use crate::account::{Account, BeholderName};
use crate::account_number::AccountNumbering;
use crate::ledger::{self, Batch, Changes, Command, OutboxEvent, Outcome};
use crate::outbox::{Outbox, OutboxSignal, PAGE_ACCOUNTS, PublishedPosition, RelayError};

const SCHEMA: Schema = Schema {
    application_id: 0x7441_6363, // "tAcc"
    owner: "account service",
    migrations: &[include_str!("sqlite.sql")],
};

/// The columns of [`account_from_row`].
const COLUMNS: &str = "sequence, id, beholder_name, country_code, status, version, created_at, updated_at";

pub(super) fn open(path: &Path, clock: Clock, signal: OutboxSignal) -> Result<Opened, OpenError> {
    let file = SqliteFile::open(path, &SCHEMA)?;
    let unusable = |reason: String| OpenError::Unusable { path: path.to_owned(), reason };
    let published = PublishedPosition::default();
    let connection = file.reader()?;
    let (database_id, number_key) = connection
        .query_row("SELECT database_id, number_key FROM ledger", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(|error| unusable(error.to_string()))?;
    let numbering = AccountNumbering(Numbering::decimal(number_key));
    let outbox = Box::new(SqliteOutbox { connection, numbering: numbering.clone(), published: published.clone() });
    let writer = Writer::open(file.writer()?, numbering.clone(), clock, signal, published)
        .map_err(|error| unusable(error.to_string()))?;
    let (writer, writer_thread) =
        GroupCommit::start("account-writer", writer).map_err(|error| unusable(error.to_string()))?;
    let reader = Reader { pool: file.read_pool()?, numbering: numbering.clone(), _file: file };
    let store = Store { database: Database::Sqlite { writer, reader }, numbering };
    Ok(Opened { store, writer_thread, outbox, database_id })
}

pub(crate) struct Writer {
    connection: Connection,
    numbering: AccountNumbering,
    clock: Clock,
    ids: TimeOrderedIds,
    signal: OutboxSignal,
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
    totals: [i64; 3],
}

impl Writer {
    fn open(
        connection: Connection,
        numbering: AccountNumbering,
        clock: Clock,
        signal: OutboxSignal,
        published: PublishedPosition,
    ) -> rusqlite::Result<Self> {
        let counters = connection.query_row(
            "SELECT (SELECT coalesce(max(sequence), 0) FROM accounts), last_outbox_sequence, active, blocked, deleted
             FROM ledger",
            [],
            |row| {
                Ok(Counters {
                    last_account_sequence: row.get::<_, i64>(0)? as u64,
                    last_outbox_sequence: row.get::<_, i64>(1)? as u64,
                    totals: [row.get(2)?, row.get(3)?, row.get(4)?],
                })
            },
        )?;
        Ok(Writer { connection, numbering, clock, ids: TimeOrderedIds::new(), signal, published, removed: 0, counters })
    }
}

impl Committer for Writer {
    type Command = Command;
    type Outcome = Outcome;

    fn commit(&mut self, commands: Vec<Command>) -> Result<Vec<Outcome>, StoreError> {
        let (now, published) = (self.clock.now(), self.published.get());
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut accounts = HashMap::new();
        for id in ledger::named_accounts(&commands) {
            accounts.extend(account_by_id(&transaction, &self.numbering, id)?.map(|account| (id, account)));
        }
        let batch = Batch { numbering: &self.numbering, ids: &self.ids, now, accounts };
        let (outcomes, changes) = batch.decide(commands, self.counters.last_account_sequence + 1..);
        let counters = write(&transaction, &changes, self.counters, now)?;
        if published > self.removed {
            remove_published(&transaction, published)?;
        }
        transaction.commit()?;
        (self.counters, self.removed) = (counters, published);
        if !changes.events.is_empty() {
            self.signal.notify();
        }
        Ok(outcomes)
    }

    /// Removes what was published since the last commit, if nothing else gave the occasion.
    fn idle(&mut self) -> Result<(), StoreError> {
        let published = self.published.get();
        if published > self.removed {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            remove_published(&transaction, published)?;
            transaction.commit()?;
            self.removed = published;
        }
        Ok(())
    }
}

/// Writes `changes` and returns what the next rows continue from once they are committed.
fn write(
    transaction: &Transaction<'_>,
    changes: &Changes,
    mut counters: Counters,
    now: Timestamp,
) -> rusqlite::Result<Counters> {
    for (sequence, account) in &changes.created {
        counters.last_account_sequence = *sequence;
        transaction.prepare_cached("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?.execute(params![
            *sequence as i64,
            account.id.0.as_bytes(),
            account.beholder_name.as_str(),
            account.country_code.as_str(),
            account.status.as_str(),
            account.version,
            account.created_at.as_microsecond(),
            account.updated_at.as_microsecond(),
        ])?;
    }
    for account in &changes.updated {
        let mut statement = transaction.prepare_cached(
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
    }
    let now = u64::try_from(now.as_microsecond()).unwrap_or(0);
    for event in &changes.events {
        counters.last_outbox_sequence = now.max(counters.last_outbox_sequence + 1);
        transaction.prepare_cached("INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?)")?.execute(params![
            counters.last_outbox_sequence as i64,
            event.event.account_id.0.as_bytes(),
            event.event.event_type.as_str(),
            event.event.status.as_str(),
            event.version,
            event.occurred_at.as_microsecond(),
            event.traceparent,
        ])?;
    }
    for (total, change) in counters.totals.iter_mut().zip(changes.totals) {
        *total += change;
    }
    let [active, blocked, deleted] = counters.totals;
    transaction
        .prepare_cached("UPDATE ledger SET active = ?, blocked = ?, deleted = ?, last_outbox_sequence = ?")?
        .execute(params![active, blocked, deleted, counters.last_outbox_sequence as i64])?;
    Ok(counters)
}

/// The outbox of this instance alone: nobody else publishes from it.
struct SqliteOutbox {
    connection: Connection,
    numbering: AccountNumbering,
    published: PublishedPosition,
}

impl Outbox for SqliteOutbox {
    fn may_publish(&mut self) -> Result<bool, StoreError> {
        Ok(true)
    }

    fn read_after(&mut self, position: u64, limit: usize) -> Result<(Vec<Record>, u64), StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT sequence, account_id, event_type, status, version, occurred_at, traceparent
             FROM outbox WHERE sequence > ? ORDER BY sequence LIMIT ?",
        )?;
        let mut rows = statement.query(params![position as i64, limit as i64])?;
        let (mut records, mut last) = (Vec::new(), position);
        while let Some(row) = rows.next()? {
            last = row.get::<_, i64>(0)? as u64;
            records.push(event_from_row(row)?.record());
        }
        Ok((records, last))
    }

    fn removed(&mut self) -> Result<u64, StoreError> {
        let removed =
            self.connection.query_row("SELECT removed_outbox_sequence FROM ledger", [], |row| row.get::<_, i64>(0))?;
        Ok(removed as u64)
    }

    fn every_account(
        &mut self,
        publish: &mut dyn FnMut(Vec<Record>, Option<u64>) -> Result<(), LogError>,
    ) -> Result<(), RelayError> {
        // One read transaction: everything is of the moment of its first statement.
        let transaction = self.connection.transaction().map_err(StoreError::from)?;
        let head = transaction
            .query_row("SELECT last_outbox_sequence FROM ledger", [], |row| row.get::<_, i64>(0))
            .map_err(StoreError::from)? as u64;
        let mut behind = 0;
        loop {
            let (records, last) =
                state_page(&transaction, &self.numbering, behind, PAGE_ACCOUNTS).map_err(StoreError::from)?;
            let is_last = records.len() < PAGE_ACCOUNTS;
            publish(records, is_last.then_some(head))?;
            if is_last {
                return Ok(());
            }
            behind = last;
        }
    }

    fn waiting(&mut self) -> Result<u64, StoreError> {
        Ok(self.connection.query_row("SELECT count(*) FROM outbox", [], |row| row.get::<_, i64>(0))? as u64)
    }

    /// The writer does it with its next transaction, so that removal costs no sync of its own.
    fn remove_published(&mut self, position: u64) -> Result<(), StoreError> {
        self.published.advance(position);
        Ok(())
    }
}

/// In one transaction: the one that `connection` has open.
fn remove_published(connection: &Connection, position: u64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM outbox WHERE sequence <= ?")?.execute([position as i64])?;
    let mut note =
        connection.prepare_cached("UPDATE ledger SET removed_outbox_sequence = max(removed_outbox_sequence, ?)")?;
    note.execute([position as i64])?;
    Ok(())
}

#[derive(Clone)]
pub(crate) struct Reader {
    pool: ReadPool,
    numbering: AccountNumbering,
    /// Keeps the file locked for this process.
    _file: SqliteFile,
}

impl Reader {
    pub(super) async fn account(&self, id: AccountId) -> Result<Option<Account>, StoreError> {
        let numbering = self.numbering.clone();
        self.pool.read(move |connection| account_by_id(connection, &numbering, id)).await
    }

    pub(super) async fn account_by_sequence(&self, sequence: u64) -> Result<Option<Account>, StoreError> {
        let numbering = self.numbering.clone();
        let account = self.pool.read(move |connection| {
            let mut statement =
                connection.prepare_cached(&format!("SELECT {COLUMNS} FROM accounts WHERE sequence = ?"))?;
            statement.query_row([sequence as i64], |row| account_from_row(row, &numbering)).optional()
        });
        account.await
    }

    /// `None` if `after` is no account.
    pub(super) async fn page(&self, request: PageRequest) -> Result<Option<Page>, StoreError> {
        let numbering = self.numbering.clone();
        self.pool.read(move |connection| page(connection, &numbering, request)).await
    }
}

/// The state of up to `limit` accounts behind the sequence `behind`, with the last one's sequence.
fn state_page(
    connection: &Connection,
    numbering: &AccountNumbering,
    behind: i64,
    limit: usize,
) -> rusqlite::Result<(Vec<Record>, i64)> {
    let sql = format!("SELECT {COLUMNS} FROM accounts WHERE sequence > ? ORDER BY sequence LIMIT ?");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![behind, limit as i64])?;
    let (mut records, mut last) = (Vec::new(), behind);
    while let Some(row) = rows.next()? {
        last = row.get(0)?;
        records.push(OutboxEvent::of_state(&account_from_row(row, numbering)?).record());
    }
    Ok((records, last))
}

fn account_by_id(
    connection: &Connection,
    numbering: &AccountNumbering,
    id: AccountId,
) -> rusqlite::Result<Option<Account>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM accounts WHERE id = ?"))?;
    statement.query_row([id.0.as_bytes()], |row| account_from_row(row, numbering)).optional()
}

fn page(connection: &Connection, numbering: &AccountNumbering, request: PageRequest) -> rusqlite::Result<Option<Page>> {
    let before = match request.after {
        None => i64::MAX,
        Some(id) => {
            let mut statement = connection.prepare_cached("SELECT sequence FROM accounts WHERE id = ?")?;
            match statement.query_row([id.0.as_bytes()], |row| row.get(0)).optional()? {
                None => return Ok(None),
                Some(sequence) => sequence,
            }
        }
    };
    let filter = if request.status.is_some() { "status = ?3 AND" } else { "?3 IS NULL AND" };
    let sql = format!("SELECT {COLUMNS} FROM accounts WHERE {filter} sequence < ?1 ORDER BY sequence DESC LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    // One more than asked for tells whether there are more.
    let parameters = params![before, request.limit as i64 + 1, request.status.map(AccountStatus::as_str)];
    let rows = statement.query_map(parameters, |row| account_from_row(row, numbering))?;
    let accounts = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let total = match request.status {
        None => "active + blocked + deleted",
        Some(AccountStatus::Active) => "active",
        Some(AccountStatus::Blocked) => "blocked",
        Some(AccountStatus::Deleted) => "deleted",
    };
    let mut statement = connection.prepare_cached(&format!("SELECT {total} FROM ledger"))?;
    let total = statement.query_row([], |row| row.get::<_, i64>(0))? as u64;
    Ok(Some(request.page(accounts, total)))
}

fn account_from_row(row: &Row<'_>, numbering: &AccountNumbering) -> rusqlite::Result<Account> {
    Ok(Account {
        id: AccountId(Uuid::from_bytes(row.get(1)?)),
        account_number: numbering.number(row.get::<_, i64>(0)? as u64),
        beholder_name: BeholderName::stored(row.get(2)?),
        country_code: parsed(row, 3, |text| text.parse().ok())?,
        status: parsed(row, 4, AccountStatus::parse)?,
        version: row.get(5)?,
        created_at: timestamp(row, 6)?,
        updated_at: timestamp(row, 7)?,
    })
}

fn event_from_row(row: &Row<'_>) -> rusqlite::Result<OutboxEvent> {
    let version = row.get(4)?;
    let event = AccountEvent {
        account_id: AccountId(Uuid::from_bytes(row.get(1)?)),
        event_type: parsed(row, 2, EventType::parse)?,
        status: parsed(row, 3, AccountStatus::parse)?,
        version: Some(version),
    };
    Ok(OutboxEvent { event, version, occurred_at: timestamp(row, 5)?, traceparent: row.get(6)? })
}

/// The text of a column, parsed; one that the parser does not know is an error that names the column.
fn parsed<T>(row: &Row<'_>, column: usize, parse: impl Fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    parse(text).ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, format!("unexpected value {text:?}").into())
    })
}

/// A column of microseconds as a time.
fn timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let conversion = |error| rusqlite::Error::FromSqlConversionFailure(column, Type::Integer, Box::new(error));
    Timestamp::from_microsecond(row.get(column)?).map_err(conversion)
}
