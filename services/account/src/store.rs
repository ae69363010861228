//! The account database: what handlers ask of it. Writing goes through the one [`Ledger`], reading has connections of its
//! own and sees each commit as soon as it is answered.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use account_events::{AccountId, AccountStatus};
use country_code::CountryCode;
use database::sqlite::{OpenError, ReadPool, Schema, SqliteFile};
use database::{GroupCommit, StoreError};
use http_server::IfMatch;
use jiff::Timestamp;
use numbering::Numbering;
use process::Clock;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::account::{Account, BeholderName, Change};
use crate::error::AccountError;
use crate::ledger::{Command, Ledger};
use crate::outbox::{OutboxSignal, PublishedPosition, parsed};

const SCHEMA: Schema = Schema {
    application_id: 0x7441_6363, // "tAcc"
    owner: "account service",
    migrations: &[include_str!("schema.sql")],
};

/// What stands before the digits of an account number (api.md).
const NUMBER_PREFIX: &str = "ACC-";

/// The columns of [`account_from_row`].
const COLUMNS: &str = "sequence, id, beholder_name, country_code, status, version, created_at, updated_at";

/// The database, for handlers.
#[derive(Clone)]
pub struct Store {
    writer: GroupCommit<Ledger>,
    readers: ReadPool,
    numbering: AccountNumbering,
    /// Keeps the file locked for this process.
    _file: Arc<SqliteFile>,
}

/// What else opening the database gives: for the relay, and for the end.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) writer_thread: JoinHandle<()>,
    pub(crate) outbox_reader: Connection,
    pub(crate) database_id: String,
}

/// A page of accounts, newest first.
pub struct Page {
    /// At most as many as were asked for.
    pub accounts: Vec<Account>,
    /// How many there are in all, of the status asked for.
    pub total: u64,
    /// Whether older ones follow.
    pub more: bool,
}

impl Store {
    /// Opens the file at `path`. The writer signals `outbox` after each commit with events, and removes from the outbox
    /// what `published` covers.
    pub(crate) fn open(
        path: &Path,
        clock: Clock,
        outbox: OutboxSignal,
        published: PublishedPosition,
    ) -> Result<Opened, OpenError> {
        let file = SqliteFile::open(path, &SCHEMA)?;
        let unusable = |reason: String| OpenError::Unusable { path: path.to_owned(), reason };
        let outbox_reader = file.reader()?;
        let (database_id, number_key) = outbox_reader
            .query_row("SELECT database_id, number_key FROM ledger", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(|error| unusable(error.to_string()))?;
        let numbering = AccountNumbering(Numbering::decimal(number_key));
        let ledger = Ledger::open(file.writer()?, numbering.clone(), clock, outbox, published)
            .map_err(|error| unusable(error.to_string()))?;
        let (writer, writer_thread) =
            GroupCommit::start("account-ledger", ledger).map_err(|error| unusable(error.to_string()))?;
        let store = Store { writer, readers: file.read_pool()?, numbering, _file: Arc::new(file) };
        Ok(Opened { store, writer_thread, outbox_reader, database_id })
    }

    /// Creates an account and its event in one transaction.
    pub async fn create(
        &self,
        beholder_name: BeholderName,
        country_code: CountryCode,
        traceparent: String,
    ) -> Result<Account, AccountError> {
        self.writer.submit(Command::Create { beholder_name, country_code, traceparent }).await?
    }

    /// Changes an account, with its event if the status changes, in one transaction.
    pub async fn change(
        &self,
        id: AccountId,
        change: Change,
        if_match: Option<IfMatch>,
        traceparent: String,
    ) -> Result<Account, AccountError> {
        self.writer.submit(Command::Change { id, change, if_match, traceparent }).await?
    }

    /// The account with this id.
    pub async fn account(&self, id: AccountId) -> Result<Account, AccountError> {
        let numbering = self.numbering.clone();
        self.readers
            .read(move |connection| account_by_id(connection, &numbering, id))
            .await?
            .ok_or(AccountError::NotFound)
    }

    /// The account with this number.
    pub async fn account_by_number(&self, number: &str) -> Result<Account, AccountError> {
        let sequence = self.numbering.sequence(number).ok_or(AccountError::NotFound)?;
        let numbering = self.numbering.clone();
        let account = self.readers.read(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM accounts WHERE sequence = ?");
            let mut statement = connection.prepare_cached(&sql)?;
            statement.query_row([sequence as i64], |row| account_from_row(row, &numbering)).optional()
        });
        account.await?.ok_or(AccountError::NotFound)
    }

    /// A page of at most `limit` accounts, newest first, of one status or all, behind the account `after`.
    pub async fn page(
        &self,
        limit: usize,
        after: Option<AccountId>,
        status: Option<AccountStatus>,
    ) -> Result<Page, AccountError> {
        let numbering = self.numbering.clone();
        let page = self.readers.read(move |connection| page(connection, &numbering, limit, after, status));
        page.await?.ok_or(AccountError::InvalidAfter)
    }

    /// Ends the writer thread once everything accepted so far is durable.
    pub(crate) fn stop(&self) {
        self.writer.stop();
    }
}

/// Account numbers from sequences and back.
#[derive(Clone)]
pub(crate) struct AccountNumbering(Numbering);

impl AccountNumbering {
    pub(crate) fn number(&self, sequence: u64) -> String {
        format!("{NUMBER_PREFIX}{}", self.0.digits(sequence))
    }

    fn sequence(&self, number: &str) -> Option<u64> {
        self.0.sequence(number.strip_prefix(NUMBER_PREFIX)?)
    }
}

pub(crate) fn account_by_id(
    connection: &Connection,
    numbering: &AccountNumbering,
    id: AccountId,
) -> rusqlite::Result<Option<Account>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM accounts WHERE id = ?"))?;
    statement.query_row([id.0.as_bytes()], |row| account_from_row(row, numbering)).optional()
}

/// `None` if `after` is no account.
fn page(
    connection: &Connection,
    numbering: &AccountNumbering,
    limit: usize,
    after: Option<AccountId>,
    status: Option<AccountStatus>,
) -> rusqlite::Result<Option<Page>> {
    let before = match after {
        None => i64::MAX,
        Some(id) => {
            let mut statement = connection.prepare_cached("SELECT sequence FROM accounts WHERE id = ?")?;
            match statement.query_row([id.0.as_bytes()], |row| row.get(0)).optional()? {
                None => return Ok(None),
                Some(sequence) => sequence,
            }
        }
    };
    let filter = if status.is_some() { "status = ?3 AND" } else { "?3 IS NULL AND" };
    let sql = format!("SELECT {COLUMNS} FROM accounts WHERE {filter} sequence < ?1 ORDER BY sequence DESC LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    // One more than asked for tells whether there are more.
    let rows = statement.query_map(params![before, limit as i64 + 1, status.map(AccountStatus::as_str)], |row| {
        account_from_row(row, numbering)
    })?;
    let mut accounts = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let more = accounts.len() > limit;
    accounts.truncate(limit);
    let total = match status {
        None => "active + blocked + deleted",
        Some(AccountStatus::Active) => "active",
        Some(AccountStatus::Blocked) => "blocked",
        Some(AccountStatus::Deleted) => "deleted",
    };
    let total = connection
        .prepare_cached(&format!("SELECT {total} FROM ledger"))?
        .query_row([], |row| row.get::<_, i64>(0))? as u64;
    Ok(Some(Page { accounts, total, more }))
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

/// A column of microseconds as a time.
pub(crate) fn timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let conversion = |error| rusqlite::Error::FromSqlConversionFailure(column, Type::Integer, Box::new(error));
    Timestamp::from_microsecond(row.get(column)?).map_err(conversion)
}

impl From<rusqlite::Error> for AccountError {
    fn from(error: rusqlite::Error) -> Self {
        AccountError::Store(StoreError::from(error))
    }
}
