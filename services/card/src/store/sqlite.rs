//! The cards in a SQLite file, for one instance. Its writer alone numbers cards, in the order of commit.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use account_events::AccountId;
use database::sqlite::{ReadPool, Schema, SqliteFile};
use database::{Committer, GroupCommit, OpenError, StoreError};
use jiff::Timestamp;
use numbering::{Numbering, TimeOrderedIds};
use process::Clock;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use uuid::Uuid;

use super::{Page, PageRequest, Store};
use crate::card::Card;
use crate::card_number::CardNumbering;
use crate::ledger::{Batch, Changes, Command, Named, Outcome};
use crate::quarantine::{self, QuarantinedRecord};

const SCHEMA: Schema = Schema {
    application_id: 0x7443_7264, // "tCrd"
    owner: "card service",
    migrations: &[include_str!("sqlite.sql")],
};

/// The columns of [`card_from_row`].
const COLUMNS: &str = "sequence, id, country, account_id, deleted, created_at";

pub(super) fn open(path: &Path, clock: Clock) -> Result<(Store, JoinHandle<()>), OpenError> {
    let file = SqliteFile::open(path, &SCHEMA)?;
    let unusable = |reason: String| OpenError::Unusable { path: path.to_owned(), reason };
    let connection = file.writer()?;
    let number_key = connection
        .query_row("SELECT number_key FROM ledger", [], |row| row.get(0))
        .map_err(|error| unusable(error.to_string()))?;
    let numbering = CardNumbering(Numbering::hexadecimal(number_key));
    let writer = Writer::open(connection, numbering.clone(), clock).map_err(|error| unusable(error.to_string()))?;
    let (writer, writer_thread) =
        GroupCommit::start("card-writer", writer).map_err(|error| unusable(error.to_string()))?;
    let reader = Reader { pool: file.read_pool()?, numbering: numbering.clone(), _file: file };
    Ok((Store { writer, reader: Arc::new(super::Reader::Sqlite(reader)), numbering }, writer_thread))
}

struct Writer {
    connection: Connection,
    numbering: CardNumbering,
    clock: Clock,
    ids: TimeOrderedIds,
    counters: Counters,
}

/// What the next cards continue from: as of the last commit.
#[derive(Debug, Clone, Copy)]
struct Counters {
    last_sequence: u64,
    cards: u64,
}

impl Writer {
    fn open(connection: Connection, numbering: CardNumbering, clock: Clock) -> rusqlite::Result<Self> {
        let counters = connection.query_row(
            "SELECT (SELECT coalesce(max(sequence), 0) FROM cards), cards FROM ledger",
            [],
            |row| Ok(Counters { last_sequence: row.get::<_, i64>(0)? as u64, cards: row.get::<_, i64>(1)? as u64 }),
        )?;
        Ok(Writer { connection, numbering, clock, ids: TimeOrderedIds::new(), counters })
    }
}

impl Committer for Writer {
    type Command = Command;
    type Outcome = Outcome;

    fn commit(&mut self, commands: Vec<Command>, is_failing: bool) -> Result<Vec<Outcome>, StoreError> {
        let now = self.clock.now();
        if cfg!(feature = "bench-no-database") {
            let (closed, cards) = (BTreeSet::new(), HashMap::new());
            let batch = Batch { numbering: &self.numbering, ids: &self.ids, now, closed, cards };
            let (outcomes, changes) = batch.decide(commands, self.counters.last_sequence + 1..);
            self.counters.last_sequence += changes.created.len() as u64;
            return Ok(outcomes);
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let named = Named::by(&commands);
        let (closed, cards) = (closed_accounts(&transaction, &named)?, cards_to_delete(&transaction, &named)?);
        let batch = Batch { numbering: &self.numbering, ids: &self.ids, now, closed, cards };
        let (outcomes, changes) = batch.decide(commands, self.counters.last_sequence + 1..);
        // Only refusals, or closing what is closed: nothing that would be worth a sync, unless it is to tell
        // whether the database takes transactions again.
        if changes.is_empty() && !is_failing {
            return Ok(outcomes);
        }
        let counters = write(&transaction, &changes, self.counters, now)?;
        transaction.commit()?;
        self.counters = counters;
        Ok(outcomes)
    }
}

fn closed_accounts(connection: &Connection, named: &Named) -> rusqlite::Result<BTreeSet<AccountId>> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM card_accounts WHERE account_id = ? AND closed = 1")?;
    let mut closed = BTreeSet::new();
    for account_id in &named.accounts {
        if statement.exists([account_id.0.as_bytes()])? {
            closed.insert(*account_id);
        }
    }
    Ok(closed)
}

fn cards_to_delete(connection: &Connection, named: &Named) -> rusqlite::Result<HashMap<Uuid, bool>> {
    let mut statement = connection.prepare_cached("SELECT deleted FROM cards WHERE id = ?")?;
    let mut cards = HashMap::new();
    for id in &named.cards {
        let deleted = statement.query_row([id.as_bytes()], |row| row.get(0)).optional()?;
        cards.extend(deleted.map(|deleted| (*id, deleted)));
    }
    Ok(cards)
}

/// Writes `changes` and returns what the next cards continue from once they are committed.
fn write(
    transaction: &Transaction<'_>,
    changes: &Changes,
    mut counters: Counters,
    now: Timestamp,
) -> rusqlite::Result<Counters> {
    for (sequence, card) in &changes.created {
        counters.last_sequence = *sequence;
        counters.cards += 1;
        transaction.prepare_cached("INSERT INTO cards VALUES (?, ?, ?, ?, 0, ?)")?.execute(params![
            *sequence as i64,
            card.id.as_bytes(),
            card.country.as_str(),
            card.account_id.0.as_bytes(),
            card.creation_timestamp.as_microsecond(),
        ])?;
    }
    for (account_id, count) in &changes.counts {
        let mut statement = transaction.prepare_cached(
            "INSERT INTO card_accounts VALUES (?, ?, 0) ON CONFLICT (account_id) DO UPDATE SET cards = cards + excluded.cards",
        )?;
        statement.execute(params![account_id.0.as_bytes(), count])?;
    }
    for id in &changes.deleted {
        transaction.prepare_cached("UPDATE cards SET deleted = 1 WHERE id = ?")?.execute([id.as_bytes()])?;
    }
    for account_id in &changes.closed {
        let mut close = transaction.prepare_cached(
            "INSERT INTO card_accounts VALUES (?, 0, 1) ON CONFLICT (account_id) DO UPDATE SET closed = 1",
        )?;
        close.execute([account_id.0.as_bytes()])?;
        let mut delete =
            transaction.prepare_cached("UPDATE cards SET deleted = 1 WHERE account_id = ? AND deleted = 0")?;
        delete.execute([account_id.0.as_bytes()])?;
    }
    quarantine(transaction, &changes.quarantined, now)?;
    transaction.prepare_cached("UPDATE ledger SET cards = ?")?.execute([counters.cards as i64])?;
    Ok(counters)
}

/// Keeps `records`, as far as there is room.
fn quarantine(connection: &Connection, records: &[QuarantinedRecord], now: Timestamp) -> rusqlite::Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    let kept: i64 = connection.query_row("SELECT count(*) FROM quarantine", [], |row| row.get(0))?;
    let room = quarantine::MAX_RECORDS.saturating_sub(kept as usize);
    let mut statement = connection.prepare_cached(
        "INSERT INTO quarantine VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET (reason, detail, key, value, headers, seen_at)
             = (excluded.reason, excluded.detail, excluded.key, excluded.value, excluded.headers, excluded.seen_at)
         WHERE value IS NOT excluded.value",
    )?;
    for record in records.iter().take(room) {
        statement.execute(params![
            record.partition,
            record.offset as i64,
            record.code,
            record.detail,
            record.key,
            record.value,
            record.headers,
            now.as_microsecond(),
        ])?;
    }
    Ok(())
}

#[derive(Clone)]
pub(super) struct Reader {
    pool: ReadPool,
    numbering: CardNumbering,
    /// Keeps the file locked for this process.
    _file: SqliteFile,
}

impl Reader {
    pub(super) async fn card(&self, id: Uuid) -> Result<Option<Card>, StoreError> {
        self.one("id", id.as_bytes().to_vec()).await
    }

    pub(super) async fn card_by_sequence(&self, sequence: u64) -> Result<Option<Card>, StoreError> {
        self.one("sequence", sequence as i64).await
    }

    async fn one(
        &self,
        column: &'static str,
        value: impl rusqlite::ToSql + Send + 'static,
    ) -> Result<Option<Card>, StoreError> {
        let numbering = self.numbering.clone();
        let card = self.pool.read(move |connection| {
            let mut statement =
                connection.prepare_cached(&format!("SELECT {COLUMNS} FROM cards WHERE {column} = ?"))?;
            statement.query_row([value], |row| card_from_row(row, &numbering)).optional()
        });
        card.await
    }

    /// `None` if `after` is no card.
    pub(super) async fn page(&self, request: PageRequest) -> Result<Option<Page>, StoreError> {
        let numbering = self.numbering.clone();
        self.pool.read(move |connection| page(connection, &numbering, request)).await
    }
}

fn page(connection: &Connection, numbering: &CardNumbering, request: PageRequest) -> rusqlite::Result<Option<Page>> {
    let before = match request.after {
        None => i64::MAX,
        Some(id) => {
            let mut statement = connection.prepare_cached("SELECT sequence FROM cards WHERE id = ?")?;
            match statement.query_row([id.as_bytes()], |row| row.get(0)).optional()? {
                None => return Ok(None),
                Some(sequence) => sequence,
            }
        }
    };
    let filter = if request.account_id.is_some() { "account_id = ?3 AND" } else { "?3 IS NULL AND" };
    let sql = format!("SELECT {COLUMNS} FROM cards WHERE {filter} sequence < ?1 ORDER BY sequence DESC LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let account = request.account_id.map(|id| id.0.into_bytes());
    // One more than asked for tells whether there are more.
    let parameters = params![before, request.limit as i64 + 1, account];
    let rows = statement.query_map(parameters, |row| card_from_row(row, numbering))?;
    let cards = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let total = match account {
        None => "SELECT cards FROM ledger WHERE ?1 IS NULL",
        Some(_) => "SELECT cards FROM card_accounts WHERE account_id = ?1",
    };
    let total = connection.prepare_cached(total)?.query_row([account], |row| row.get::<_, i64>(0)).optional()?;
    Ok(Some(request.page(cards, total.unwrap_or(0) as u64)))
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
