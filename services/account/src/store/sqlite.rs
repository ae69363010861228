//! The account database in a SQLite file, used by one instance. One writer numbers accounts and events, so both sequences are in the
//! order of commit.

mod history;
mod keys;
pub(crate) mod outbox;
mod reader;
pub(crate) mod recover;
mod states;
mod writer;

use std::path::Path;

use account_events::{AccountId, AccountStatus};
use clock::Clock;
use group_commit::{GroupCommit, KeyExpiry};
use jiff::Timestamp;
use numbering::Numbering;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use sqlite_file::{OpenError, Schema, SqliteFile};
use uuid::Uuid;

use self::outbox::{PublishedPosition, SqliteOutbox};
pub(super) use self::reader::Reader;
use self::writer::Writer;
use super::{Opened, Store};
use crate::account::{Account, BeholderName};
use crate::account_number::AccountNumbering;
use crate::lineage::{Inheritance, Predecessor, SupersededState};
use crate::outbox::OutboxSignal;
use crate::outbox::recent_events::RecentEvents;

pub(crate) const SCHEMA: Schema = Schema {
    application_id: 0x7441_6363, // "tAcc"
    owner: "account service",
    migrations: &[include_str!("../../migrations/sqlite-1.sql")],
};

/// The columns of [`account_from_row`].
const COLUMNS: &str =
    "sequence, id, beholder_name, country_code, status, version, event_version, created_at, updated_at";

/// The sequence of the last committed event, which may have left the outbox.
const LAST_EVENT: &str =
    "SELECT max(removed_outbox_sequence, (SELECT coalesce(max(last_sequence), 0) FROM outbox)) FROM ledger";

/// The greatest sequence of an account, or the greatest that must not be used.
const LAST_ACCOUNT: &str =
    "SELECT max(account_sequence_floor, (SELECT coalesce(max(sequence), 0) FROM accounts)) FROM ledger";

pub(super) fn open(
    path: &Path,
    clock: Clock,
    keys: KeyExpiry,
    signal: OutboxSignal,
    predecessor: &Predecessor,
) -> Result<Opened, OpenError> {
    let file = SqliteFile::open(path, &SCHEMA)?;
    let published = PublishedPosition::default();
    let (connection, durability) = file.group_writer()?;
    let (number_key, superseded) =
        begin_lineage(&connection, predecessor).map_err(|error| OpenError::unusable(path, error))?;
    let numbering = AccountNumbering(Numbering::decimal(number_key));
    let recent = RecentEvents::default();
    let outbox = SqliteOutbox::new(
        file.shared_writer()?,
        durability.clone(),
        numbering.clone(),
        recent.clone(),
        published.clone(),
    );
    let reader_published = published.clone();
    let read_pool = file.read_pool(durability.clone())?;
    let writer = Writer::open(
        (connection, durability),
        numbering.clone(),
        (clock.clone(), keys.clone()),
        signal,
        recent,
        published,
    )
    .map_err(|error| OpenError::unusable(path, error))?;
    let (writer, writer_thread) =
        GroupCommit::start("account-writer", writer).map_err(|error| OpenError::unusable(path, error))?;
    let reader = super::Reader::Sqlite(Reader::new(read_pool, numbering.clone(), reader_published));
    let store = Store { writer, reader, numbering, superseded: SupersededState::new(superseded), clock, keys };
    Ok(Opened { store, writer_thread, outbox: Box::new(outbox) })
}

/// Sets the anchor to the last event, unless it is set. An empty database takes over the topic of the owner in the log. Returns the
/// key of the numbers, and why the database takes no writes.
fn begin_lineage(connection: &Connection, predecessor: &Predecessor) -> rusqlite::Result<([u8; 16], Option<String>)> {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM accounts) AND NOT EXISTS (SELECT 1 FROM publisher_sessions)";
    if connection.query_row(sql, [], |row| row.get(0))?
        && let Some(Inheritance { owner, number_key, position, account_sequence_floor }) = predecessor()
    {
        let transaction = connection.unchecked_transaction()?;
        transaction.execute(
            "UPDATE ledger SET database_id = ?1, number_key = ?2, account_sequence_floor = ?3, unused_sequences = ?3,
                 removed_outbox_sequence = ?4",
            params![owner.database_id, number_key, account_sequence_floor as i64, position as i64],
        )?;
        transaction.execute("INSERT INTO publisher_sessions (session) VALUES (?)", [owner.session])?;
        transaction.commit()?;
    }
    // Not synced here: the write-ahead log has the anchor before every later event.
    connection.execute(&format!("UPDATE ledger SET outbox_anchor = coalesce(outbox_anchor, ({LAST_EVENT}))"), [])?;
    connection.query_row("SELECT number_key, superseded FROM ledger", [], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// The account with this id, and its sequence. The id contains a permutation of the sequence, so no index is needed.
fn account_by_id(
    connection: &Connection,
    numbering: &AccountNumbering,
    id: AccountId,
) -> rusqlite::Result<Option<(i64, Account)>> {
    let sql = format!("SELECT {COLUMNS} FROM accounts WHERE sequence = ?1 AND id = ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let row = |row: &Row<'_>| Ok((row.get(0)?, account_from_row(row, numbering)?));
    statement.query_row(params![numbering.0.sequence_of_id(id.0) as i64, id.0.as_bytes()], row).optional()
}

fn account_from_row(row: &Row<'_>, numbering: &AccountNumbering) -> rusqlite::Result<Account> {
    Ok(Account {
        id: AccountId(Uuid::from_bytes(row.get(1)?)),
        account_number: numbering.number(row.get::<_, i64>(0)? as u64),
        beholder_name: BeholderName::stored(row.get(2)?),
        country_code: parsed(row, 3, |text| text.parse().ok())?,
        status: parsed(row, 4, AccountStatus::parse)?,
        version: row.get(5)?,
        event_version: row.get(6)?,
        created_at: timestamp(row, 7)?,
        updated_at: timestamp(row, 8)?,
    })
}

/// Parses the text of a column. The error names the column.
fn parsed<T>(row: &Row<'_>, column: usize, parse: impl Fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    parse(text).ok_or_else(|| invalid(column, text))
}

/// The error for a value that this service never writes.
fn invalid(column: usize, value: impl std::fmt::Debug) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Null, format!("unexpected value {value:?}").into())
}

/// The time in a column of microseconds.
fn timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let conversion = |error| rusqlite::Error::FromSqlConversionFailure(column, Type::Integer, Box::new(error));
    Timestamp::from_microsecond(row.get(column)?).map_err(conversion)
}
