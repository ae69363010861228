//! The accounts in a SQLite file, for one instance. Its writer alone numbers accounts and events, so both are in the order
//! of commit.

mod event_batch;
pub(crate) mod outbox;
mod reader;
mod writer;

use std::path::Path;
use std::sync::Arc;

use account_events::{AccountId, AccountStatus};
use database::sqlite::{Schema, SqliteFile};
use database::{GroupCommit, OpenError};
use jiff::Timestamp;
use numbering::Numbering;
use process::Clock;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};
use uuid::Uuid;

use self::event_batch::RecentEvents;
use self::outbox::{PublishedPosition, SqliteOutbox};
pub(super) use self::reader::Reader;
use self::writer::Writer;
use super::{Opened, Store};
use crate::account::{Account, BeholderName};
use crate::account_number::AccountNumbering;
use crate::outbox::OutboxSignal;

pub(crate) const SCHEMA: Schema = Schema {
    application_id: 0x7441_6363, // "tAcc"
    owner: "account service",
    migrations: &[include_str!("sqlite-1.sql"), include_str!("sqlite-2.sql"), include_str!("sqlite-3.sql")],
};

/// The columns of [`account_from_row`].
const COLUMNS: &str = "sequence, id, beholder_name, country_code, status, version, created_at, updated_at";

pub(super) fn open(path: &Path, clock: Clock, signal: OutboxSignal) -> Result<Opened, OpenError> {
    let file = SqliteFile::open(path, &SCHEMA)?;
    let unusable = |reason: String| OpenError::Unusable { path: path.to_owned(), reason };
    let published = PublishedPosition::default();
    let (database_id, number_key) = file
        .reader()?
        .query_row("SELECT database_id, number_key FROM ledger", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(|error| unusable(error.to_string()))?;
    let numbering = AccountNumbering(Numbering::decimal(number_key));
    let recent = RecentEvents::default();
    let outbox = Box::new(SqliteOutbox::new(file.writer()?, numbering.clone(), recent.clone(), published.clone()));
    let writer = Writer::open(file.writer()?, numbering.clone(), clock, signal, recent, published)
        .map_err(|error| unusable(error.to_string()))?;
    let (writer, writer_thread) =
        GroupCommit::start("account-writer", writer).map_err(|error| unusable(error.to_string()))?;
    let reader = Arc::new(super::Reader::Sqlite(Reader::new(file.read_pool()?, numbering.clone(), file)));
    Ok(Opened { store: Store { writer, reader, numbering }, writer_thread, outbox, database_id })
}

fn account_by_id(
    connection: &Connection,
    numbering: &AccountNumbering,
    id: AccountId,
) -> rusqlite::Result<Option<Account>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM accounts WHERE id = ?"))?;
    statement.query_row([id.0.as_bytes()], |row| account_from_row(row, numbering)).optional()
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

/// The text of a column, parsed; one that the parser does not know is an error that names the column.
fn parsed<T>(row: &Row<'_>, column: usize, parse: impl Fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    parse(text).ok_or_else(|| invalid(column, text))
}

/// A column's text is none that was ever written.
fn invalid(column: usize, text: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, format!("unexpected value {text:?}").into())
}

/// A column of microseconds as a time.
fn timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let conversion = |error| rusqlite::Error::FromSqlConversionFailure(column, Type::Integer, Box::new(error));
    Timestamp::from_microsecond(row.get(column)?).map_err(conversion)
}
