//! The card database in a SQLite file, used by one instance. One writer numbers cards in the order of commit.

mod history;
mod keys;
mod quarantine;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use account_events::AccountId;
use clock::Clock;
use group_commit::{GroupCommit, KeyExpiry};
use jiff::Timestamp;
use numbering::Numbering;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};
use sqlite_file::{OpenError, Schema, SqliteFile};
use uuid::Uuid;

pub(super) use self::reader::Reader;
use self::writer::Writer;
use super::Store;
use crate::accounts::quarantine::Dropped;
use crate::accounts::view::format::CardDatabase;
use crate::card::Card;
use crate::card_number::CardNumbering;

const SCHEMA: Schema = Schema {
    application_id: 0x7443_7264, // "tCrd"
    owner: "card service",
    migrations: &[include_str!("../../migrations/sqlite-1.sql")],
};

/// The columns of [`card_from_row`].
const COLUMNS: &str = "sequence, id, country, account_id, deleted, created_at";

/// The sequence of the last card, or the greatest that must not be used.
const LAST_CARD: &str = "SELECT max(card_sequence_floor, (SELECT coalesce(max(sequence), 0) FROM cards)) FROM ledger";

/// The number of cards: apart from the unused ones, sequences have no gaps.
const CARDS: &str =
    "SELECT max(card_sequence_floor, (SELECT coalesce(max(sequence), 0) FROM cards)) - unused_sequences FROM ledger";

pub(super) fn open(
    path: &Path,
    clock: Clock,
    keys: KeyExpiry,
    checkpoint: Option<CardDatabase>,
) -> Result<(Store, JoinHandle<()>), OpenError> {
    let file = SqliteFile::open(path, &SCHEMA)?;
    let (connection, durability) = file.group_writer()?;
    let number_key = connection
        .query_row("SELECT number_key FROM ledger", [], |row| row.get(0))
        .map_err(|error| OpenError::unusable(path, error))?;
    let numbering = CardNumbering(Numbering::hexadecimal(number_key));
    let last_card = last_card(&connection, &numbering, checkpoint).map_err(|error| OpenError::unusable(path, error))?;
    let last_card = Arc::new(AtomicU64::new(last_card));
    let pool = file.read_pool(durability.clone())?;
    let dropped = Dropped::default();
    let times = (clock.clone(), keys.clone());
    let writer =
        Writer::new(connection, durability, numbering.clone(), times, (Arc::clone(&last_card), dropped.clone()));
    let (writer, writer_thread) =
        GroupCommit::start("card-writer", writer).map_err(|error| OpenError::unusable(path, error))?;
    let reader = Reader { pool, numbering: numbering.clone() };
    let reader = Arc::new(super::Reader::Sqlite(reader));
    Ok((Store { writer, reader, numbering, last_card, dropped, clock, keys }, writer_thread))
}

/// The sequence of the last card. Raises it if the database is an older copy than the checkpoint.
fn last_card(
    connection: &Connection,
    numbering: &CardNumbering,
    checkpoint: Option<CardDatabase>,
) -> rusqlite::Result<u64> {
    let last_card = connection.query_row(LAST_CARD, [], |row| row.get::<_, i64>(0))? as u64;
    let Some(floor) = super::floor(checkpoint, numbering, last_card) else { return Ok(last_card) };
    // Not synced here: the write-ahead log has the floor before every later card.
    let sql = "UPDATE ledger SET unused_sequences = unused_sequences + ?1 - ?2, card_sequence_floor = ?1";
    connection.execute(sql, [floor as i64, last_card as i64])?;
    Ok(floor)
}

/// The card with this id, and its sequence. The id contains a permutation of the sequence, so no index is needed.
fn card_by_id(connection: &Connection, numbering: &CardNumbering, id: Uuid) -> rusqlite::Result<Option<(i64, Card)>> {
    let sql = format!("SELECT {COLUMNS} FROM cards WHERE sequence = ?1 AND id = ?2");
    let row = |row: &Row<'_>| Ok((row.get(0)?, card_from_row(row, numbering)?));
    connection.prepare_cached(&sql)?.query_row(where_card_is(numbering, &id), row).optional()
}

/// The parameters of `sequence = ?1 AND id = ?2` for the card with this id.
fn where_card_is<'a>(numbering: &CardNumbering, id: &'a Uuid) -> (i64, &'a [u8]) {
    (numbering.0.sequence_of_id(*id) as i64, id.as_bytes())
}

fn card_from_row(row: &Row<'_>, numbering: &CardNumbering) -> rusqlite::Result<Card> {
    let unexpected =
        |column, kind, reason: String| rusqlite::Error::FromSqlConversionFailure(column, kind, reason.into());
    let text = row.get_ref(2)?.as_str()?;
    let country = text.parse().map_err(|_| unexpected(2, Type::Text, format!("unexpected country {text:?}")))?;
    Ok(Card {
        id: Uuid::from_bytes(row.get(1)?),
        card_number: numbering.number(country, row.get::<_, i64>(0)? as u64),
        country,
        account_id: AccountId(Uuid::from_bytes(row.get(3)?)),
        deleted: row.get(4)?,
        creation_timestamp: Timestamp::from_microsecond(row.get(5)?)
            .map_err(|error| unexpected(5, Type::Integer, error.to_string()))?,
    })
}
