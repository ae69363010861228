//! The cards in a SQLite file, for one instance. Its writer alone numbers cards, in the order of commit.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use account_events::AccountId;
use database::sqlite::{Durability, ReadPool, Schema, SqliteFile};
use database::{Committer, GroupCommit, OpenError, StoreError, Syncer};
use jiff::Timestamp;
use numbering::{Numbering, TimeOrderedIds};
use process::Clock;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params, params_from_iter};
use uuid::Uuid;

use super::{Page, PageRequest, Store};
use crate::card::Card;
use crate::card_number::CardNumbering;
use crate::ledger::{Batch, Changes, Command, Named, Outcome};
use crate::quarantine::{self, QuarantinedRecord};

const SCHEMA: Schema = Schema {
    application_id: 0x7443_7264, // "tCrd"
    owner: "card service",
    migrations: &[
        include_str!("sqlite-1.sql"),
        include_str!("sqlite-2.sql"),
        include_str!("sqlite-3.sql"),
        include_str!("sqlite-4.sql"),
    ],
};

/// The columns of [`card_from_row`].
const COLUMNS: &str = "sequence, id, country, account_id, deleted, created_at";

/// The sequence of the last card, and so the number of all: a sequence that is drawn is a card's.
const LAST_CARD: &str = "SELECT coalesce(max(sequence), 0) FROM cards";

/// Where the card with the id ?2 can be, if there is one: where its id says, ?1, or where an older one is noted.
const SEQUENCES: &str = "(?1, (SELECT sequence FROM older_ids WHERE id = ?2))";

pub(super) fn open(path: &Path, clock: Clock) -> Result<(Store, JoinHandle<()>), OpenError> {
    let file = SqliteFile::open(path, &SCHEMA)?;
    let unusable = |reason: String| OpenError::Unusable { path: path.to_owned(), reason };
    let (connection, durability) = file.group_writer()?;
    let number_key = connection
        .query_row("SELECT number_key FROM ledger", [], |row| row.get(0))
        .map_err(|error| unusable(error.to_string()))?;
    let numbering = CardNumbering(Numbering::hexadecimal(number_key));
    let pool = file.read_pool(durability.clone());
    let writer =
        Writer::open(connection, durability, numbering.clone(), clock).map_err(|error| unusable(error.to_string()))?;
    let (writer, writer_thread) =
        GroupCommit::start("card-writer", writer).map_err(|error| unusable(error.to_string()))?;
    let reader = Reader { pool, numbering: numbering.clone() };
    Ok((Store { writer, reader: Arc::new(super::Reader::Sqlite(reader)), numbering }, writer_thread))
}

struct Writer {
    connection: Connection,
    durability: Durability,
    numbering: CardNumbering,
    clock: Clock,
    ids: TimeOrderedIds,
    /// As of the last commit.
    last_sequence: u64,
}

impl Writer {
    fn open(
        connection: Connection,
        durability: Durability,
        numbering: CardNumbering,
        clock: Clock,
    ) -> rusqlite::Result<Self> {
        let last_sequence = connection.query_row(LAST_CARD, [], |row| row.get::<_, i64>(0))? as u64;
        Ok(Writer { connection, durability, numbering, clock, ids: TimeOrderedIds::new(), last_sequence })
    }
}

impl Committer for Writer {
    type Command = Command;
    type Outcome = Outcome;

    fn commit(&mut self, commands: Vec<Command>, is_failing: bool) -> Result<Vec<Outcome>, StoreError> {
        let now = self.clock.now();
        let id_of = |sequence| self.ids.next_of(now, &self.numbering.0, sequence);
        let (closed, cards) = (BTreeSet::new(), HashMap::new());
        let batch = Batch { numbering: &self.numbering, id_of: &id_of, now, closed, cards };
        if cfg!(feature = "bench-no-database") {
            let (outcomes, changes) = batch.decide(commands, self.last_sequence + 1..);
            self.last_sequence += changes.created.len() as u64;
            return Ok(outcomes);
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let named = Named::by(&commands);
        let closed = closed_accounts(&transaction, &named)?;
        let cards = cards_to_delete(&transaction, &self.numbering, &named)?;
        let batch = Batch { closed, cards, ..batch };
        let (outcomes, changes) = batch.decide(commands, self.last_sequence + 1..);
        // Only refusals, or closing what is closed: nothing that would be worth a sync, unless it is to tell
        // whether the database takes transactions again.
        if changes.is_empty() && !is_failing {
            return Ok(outcomes);
        }
        write(&transaction, &self.numbering, (&outcomes, &changes), now)?;
        self.durability.written(|| transaction.commit())?;
        if let Some((sequence, _)) = changes.created.last() {
            self.last_sequence = *sequence;
        }
        Ok(outcomes)
    }

    fn sync(&self) -> Option<Syncer> {
        (!cfg!(feature = "bench-no-database")).then(|| self.durability.syncer())
    }
}

fn closed_accounts(connection: &Connection, named: &Named) -> rusqlite::Result<BTreeSet<AccountId>> {
    let mut statement = connection
        .prepare_cached("SELECT 1 FROM cards_by_account WHERE account_id = ? AND sequence = 0 AND closed = 1")?;
    let mut closed = BTreeSet::new();
    for account_id in &named.accounts {
        if statement.exists([account_id.0.as_bytes()])? {
            closed.insert(*account_id);
        }
    }
    Ok(closed)
}

fn cards_to_delete(
    connection: &Connection,
    numbering: &CardNumbering,
    named: &Named,
) -> rusqlite::Result<HashMap<Uuid, bool>> {
    let mut cards = HashMap::new();
    for id in &named.cards {
        cards.extend(card_by_id(connection, numbering, *id)?.map(|(_, card)| (*id, card.deleted)));
    }
    Ok(cards)
}

/// The card with this id, and its sequence.
fn card_by_id(connection: &Connection, numbering: &CardNumbering, id: Uuid) -> rusqlite::Result<Option<(i64, Card)>> {
    let sql = format!("SELECT {COLUMNS} FROM cards WHERE sequence IN {SEQUENCES} AND id = ?2");
    let row = |row: &Row<'_>| Ok((row.get(0)?, card_from_row(row, numbering)?));
    connection.prepare_cached(&sql)?.query_row(where_card_is(numbering, &id), row).optional()
}

/// The parameters of [`SEQUENCES`].
fn where_card_is<'a>(numbering: &CardNumbering, id: &'a Uuid) -> (i64, &'a [u8]) {
    (numbering.0.sequence_of_id(*id) as i64, id.as_bytes())
}

/// Writes `changes`, which came with `outcomes`.
fn write(
    transaction: &Transaction<'_>,
    numbering: &CardNumbering,
    (outcomes, changes): (&[Outcome], &Changes),
    now: Timestamp,
) -> rusqlite::Result<()> {
    for (sequence, card) in changes.created(outcomes) {
        transaction.prepare_cached("INSERT INTO cards VALUES (?, ?, ?, ?, 0, ?)")?.execute(params![
            sequence as i64,
            card.id.as_bytes(),
            card.country.as_str(),
            card.account_id.0.as_bytes(),
            card.creation_timestamp.as_microsecond(),
        ])?;
        let mut own = transaction.prepare_cached("INSERT INTO cards_by_account VALUES (?, ?, NULL, NULL)")?;
        own.execute(params![card.account_id.0.as_bytes(), sequence as i64])?;
    }
    for (account_id, count) in &changes.counts {
        let mut statement = transaction.prepare_cached(
            "INSERT INTO cards_by_account VALUES (?, 0, ?, 0) ON CONFLICT DO UPDATE SET cards = cards + excluded.cards",
        )?;
        statement.execute(params![account_id.0.as_bytes(), count])?;
    }
    for id in &changes.deleted {
        let sql = format!("UPDATE cards SET deleted = 1 WHERE sequence IN {SEQUENCES} AND id = ?2");
        transaction.prepare_cached(&sql)?.execute(where_card_is(numbering, id))?;
    }
    for account_id in &changes.closed {
        let mut close = transaction
            .prepare_cached("INSERT INTO cards_by_account VALUES (?, 0, 0, 1) ON CONFLICT DO UPDATE SET closed = 1")?;
        close.execute([account_id.0.as_bytes()])?;
        let mut delete = transaction.prepare_cached(
            "UPDATE cards SET deleted = 1 WHERE deleted = 0
                 AND sequence IN (SELECT sequence FROM cards_by_account WHERE account_id = ? AND sequence > 0)",
        )?;
        delete.execute([account_id.0.as_bytes()])?;
    }
    quarantine(transaction, &changes.quarantined, now)?;
    if changes.is_empty() {
        transaction.execute("UPDATE ledger SET probes = probes + 1", [])?;
    }
    Ok(())
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

pub(super) struct Reader {
    pool: ReadPool,
    numbering: CardNumbering,
}

impl Reader {
    pub(super) async fn card(&self, id: Uuid) -> Result<Option<Card>, StoreError> {
        let numbering = self.numbering.clone();
        let found = self.pool.read(move |connection| card_by_id(connection, &numbering, id)).await?;
        Ok(found.map(|(_, card)| card))
    }

    pub(super) async fn card_by_sequence(&self, sequence: u64) -> Result<Option<Card>, StoreError> {
        let numbering = self.numbering.clone();
        let card = self.pool.read(move |connection| {
            let mut statement =
                connection.prepare_cached(&format!("SELECT {COLUMNS} FROM cards WHERE sequence = ?"))?;
            statement.query_row([sequence as i64], |row| card_from_row(row, &numbering)).optional()
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
        Some(id) => match card_by_id(connection, numbering, id)? {
            None => return Ok(None),
            Some((sequence, _)) => sequence,
        },
    };
    let last = "sequence < ?1 ORDER BY sequence DESC LIMIT ?2";
    let sql = match request.account_id {
        None => format!("SELECT {COLUMNS} FROM cards WHERE ?3 IS NULL AND {last}"),
        Some(_) => format!(
            "SELECT {COLUMNS} FROM cards WHERE sequence IN
                 (SELECT sequence FROM cards_by_account WHERE account_id = ?3 AND sequence > 0 AND {last})
             ORDER BY sequence DESC"
        ),
    };
    let mut statement = connection.prepare_cached(&sql)?;
    let account = request.account_id.map(|id| id.0.into_bytes());
    // One more than asked for tells whether there are more.
    let parameters = params![before, request.limit as i64 + 1, account];
    let rows = statement.query_map(parameters, |row| card_from_row(row, numbering))?;
    let cards = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut total = connection.prepare_cached(match account {
        None => LAST_CARD,
        Some(_) => "SELECT cards FROM cards_by_account WHERE account_id = ? AND sequence = 0",
    })?;
    let total = total.query_row(params_from_iter(account), |row| row.get::<_, i64>(0)).optional()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_where_nothing_changes_unless_it_is_to_tell_whether_it_can_be() {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteFile::open(&folder.path().join("card.db"), &SCHEMA).unwrap();
        let (connection, durability) = file.group_writer().unwrap();
        let numbering = CardNumbering(Numbering::hexadecimal([3; 16]));
        let mut writer = Writer::open(connection, durability, numbering, Clock::system()).unwrap();
        let reader = file.reader().unwrap();
        // It changes when another connection has written a page.
        let version = || reader.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0)).unwrap();
        let mut before = version();
        for (is_failing, is_written) in [(false, false), (true, true), (true, true)] {
            assert_eq!(writer.commit(Vec::new(), is_failing).unwrap().len(), 0);
            assert_eq!(version() != before, is_written);
            before = version();
        }
    }

    #[test]
    fn an_account_of_an_older_file_is_closed_and_others_keep_their_cards() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("card.db");
        let older = SqliteFile::open(&path, &Schema { migrations: &SCHEMA.migrations[..2], ..SCHEMA }).unwrap();
        let accounts = [5, 6].map(|number| AccountId(Uuid::from_u128(number)));
        for (account_id, cards) in accounts.iter().zip([3, 4]) {
            let row = params![account_id.0.as_bytes(), cards];
            older.writer().unwrap().execute("INSERT INTO card_accounts VALUES (?, ?, 0)", row).unwrap();
        }
        for sequence in 1..=7_u8 {
            let account_id = accounts[usize::from(sequence % 2 == 0 || sequence == 7)];
            let id = Uuid::from_u128(sequence.into());
            let row = params![sequence, id.as_bytes(), account_id.0.as_bytes()];
            older.writer().unwrap().execute("INSERT INTO cards VALUES (?, ?, 'US', ?, 0, 0)", row).unwrap();
        }
        drop(older);
        let file = SqliteFile::open(&path, &SCHEMA).unwrap();
        let (connection, durability) = file.group_writer().unwrap();
        let numbering = CardNumbering(Numbering::hexadecimal([3; 16]));
        let mut writer = Writer::open(connection, durability, numbering.clone(), Clock::system()).unwrap();
        let close = Command::CloseAccounts(vec![accounts[0]]);
        assert!(writer.commit(vec![close], false).unwrap().iter().all(Result::is_ok));
        let reader = file.reader().unwrap();
        for (account_id, sequences, deleted) in
            [(accounts[0], [5, 3, 1].as_slice(), true), (accounts[1], &[7, 6, 4, 2], false)]
        {
            let request = PageRequest { limit: 100, after: None, account_id: Some(account_id) };
            let found = page(&reader, &numbering, request).unwrap().expect("a page");
            assert!(found.cards.iter().map(|card| card.id.as_u128()).eq(sequences.iter().copied()));
            assert!(found.cards.iter().all(|card| card.deleted == deleted));
            assert_eq!(found.total, sequences.len() as u64);
        }
    }

    #[test]
    fn cards_of_an_older_file_and_new_ones_are_found_deleted_and_listed_alike() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("card.db");
        let older = SqliteFile::open(&path, &Schema { migrations: &SCHEMA.migrations[..1], ..SCHEMA }).unwrap();
        let account_id = AccountId(Uuid::from_u128(5));
        for sequence in 1..=9_u8 {
            // In another order than that of their sequences.
            let id = Uuid::from_u128(100 - u128::from(sequence));
            let row = params![sequence, id.as_bytes(), account_id.0.as_bytes()];
            let sql = "INSERT INTO cards VALUES (?, ?, 'US', ?, 0, 0)";
            older.writer().unwrap().execute(sql, row).unwrap();
        }
        let closed = AccountId(Uuid::from_u128(6));
        for (account_id, cards, is_closed) in [(account_id, 9, false), (closed, 0, true)] {
            let row = params![account_id.0.as_bytes(), cards, is_closed];
            older.writer().unwrap().execute("INSERT INTO card_accounts VALUES (?, ?, ?)", row).unwrap();
        }
        drop(older);
        let file = SqliteFile::open(&path, &SCHEMA).unwrap();
        let (connection, durability) = file.group_writer().unwrap();
        let named = Named { accounts: BTreeSet::from([account_id, closed]), ..Named::default() };
        assert_eq!(closed_accounts(&connection, &named).unwrap(), BTreeSet::from([closed]));
        let numbering = CardNumbering(Numbering::hexadecimal([3; 16]));
        let mut writer = Writer::open(connection, durability, numbering.clone(), Clock::system()).unwrap();
        let create = |_| Command::Create { country: "DE".parse().unwrap(), account_id };
        let made = writer.commit((0..9).map(create).collect(), false).unwrap();
        let made: Vec<_> = made.into_iter().map(|card| card.unwrap().unwrap().id).collect();
        let older = (1..=9).map(|sequence| Uuid::from_u128(100 - sequence));
        let all: Vec<_> = older.chain(made).collect();
        let deletions = || all.iter().step_by(2).map(|id| Command::Delete { id: *id }).collect();
        assert!(writer.commit(deletions(), false).unwrap().iter().all(|outcome| matches!(outcome, Ok(None))));
        let again = writer.commit(deletions(), false).unwrap();
        assert!(again.iter().all(|outcome| matches!(outcome, Err(crate::error::CardError::AlreadyDeleted))));

        let reader = file.reader().unwrap();
        for (place, id) in all.iter().enumerate() {
            let (sequence, card) = card_by_id(&reader, &numbering, *id).unwrap().expect("it is there");
            assert_eq!((sequence, card.id, card.deleted), (place as i64 + 1, *id, place % 2 == 0));
            let request = PageRequest { limit: 100, after: Some(*id), account_id: Some(account_id) };
            let behind = page(&reader, &numbering, request).unwrap().expect("the card is there");
            assert!(behind.cards.iter().map(|card| card.id).eq(all[..place].iter().rev().copied()));
            assert_eq!(behind.total, 18);
        }
        assert!(card_by_id(&reader, &numbering, Uuid::from_u128(1 << 100)).unwrap().is_none());
    }
}
