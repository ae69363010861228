//! The card database: what handlers and loops ask of it. Writing goes through the one [`Ledger`], reading has connections
//! of its own and sees each commit as soon as it is answered.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use account_events::AccountId;
use country_code::CountryCode;
use database::sqlite::{OpenError, ReadPool, Schema, SqliteFile};
use database::{GroupCommit, StoreError};
use jiff::Timestamp;
use numbering::Numbering;
use process::Clock;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::card::Card;
use crate::error::CardError;
use crate::ledger::{Command, Ledger};
use crate::quarantine::QuarantinedRecord;

const SCHEMA: Schema = Schema {
    application_id: 0x7443_7264, // "tCrd"
    owner: "card service",
    migrations: &[include_str!("schema.sql")],
};

/// The columns of [`card_from_row`].
const COLUMNS: &str = "sequence, id, country, account_id, deleted, created_at";

/// The database, for handlers and loops.
#[derive(Clone)]
pub struct Store {
    writer: GroupCommit<Ledger>,
    readers: ReadPool,
    numbering: CardNumbering,
    /// Keeps the file locked for this process.
    _file: Arc<SqliteFile>,
}

/// A page of cards, newest first.
pub struct Page {
    /// At most as many as were asked for.
    pub cards: Vec<Card>,
    /// How many there are in all, of the account asked for.
    pub total: u64,
    /// Whether older ones follow.
    pub more: bool,
}

impl Store {
    /// Opens the file at `path`, and gives the writer's thread to join after [`Store::stop`].
    pub(crate) fn open(path: &Path, clock: Clock) -> Result<(Self, JoinHandle<()>), OpenError> {
        let file = SqliteFile::open(path, &SCHEMA)?;
        let unusable = |reason: String| OpenError::Unusable { path: path.to_owned(), reason };
        let connection = file.writer()?;
        let number_key = connection
            .query_row("SELECT number_key FROM ledger", [], |row| row.get(0))
            .map_err(|error| unusable(error.to_string()))?;
        let numbering = CardNumbering(Numbering::hexadecimal(number_key));
        let ledger = Ledger::open(connection, numbering.clone(), clock).map_err(|error| unusable(error.to_string()))?;
        let (writer, writer_thread) =
            GroupCommit::start("card-ledger", ledger).map_err(|error| unusable(error.to_string()))?;
        Ok((Store { writer, readers: file.read_pool()?, numbering, _file: Arc::new(file) }, writer_thread))
    }

    /// Makes a card, unless the database knows the account to be deleted.
    pub async fn create(&self, country: CountryCode, account_id: AccountId) -> Result<Card, CardError> {
        self.writer.submit(Command::Create { country, account_id }).await??.ok_or(CardError::NotFound)
    }

    /// Deletes a card.
    pub async fn delete(&self, id: Uuid) -> Result<(), CardError> {
        self.writer.submit(Command::Delete { id }).await?.map(|_| ())
    }

    /// Deletes all cards of `accounts`, and lets them have no more. Durable when it returns; for a thread that may block.
    pub(crate) fn close_accounts(&self, accounts: Vec<AccountId>) -> Result<(), CardError> {
        self.writer.submit_blocking(Command::CloseAccounts(accounts))?.map(|_| ())
    }

    /// Keeps records for a person to look at, and does not wait for it.
    pub(crate) fn quarantine(&self, records: Vec<QuarantinedRecord>) -> Result<(), StoreError> {
        self.writer.submit_unanswered(Command::Quarantine(records))
    }

    /// The card with this id.
    pub async fn card(&self, id: Uuid) -> Result<Card, CardError> {
        let numbering = self.numbering.clone();
        self.readers.read(move |connection| card_by_id(connection, &numbering, id)).await?.ok_or(CardError::NotFound)
    }

    /// The card with this number.
    pub async fn card_by_number(&self, number: &str) -> Result<Card, CardError> {
        let (country, sequence) = self.numbering.parse(number).ok_or(CardError::NotFound)?;
        let numbering = self.numbering.clone();
        let card = self.readers.read(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM cards WHERE sequence = ?");
            let mut statement = connection.prepare_cached(&sql)?;
            statement.query_row([sequence as i64], |row| card_from_row(row, &numbering)).optional()
        });
        card.await?.filter(|card| card.country == country).ok_or(CardError::NotFound)
    }

    /// A page of at most `limit` cards, newest first, of one account or all, behind the card `after`.
    pub async fn page(
        &self,
        limit: usize,
        after: Option<Uuid>,
        account_id: Option<AccountId>,
    ) -> Result<Page, CardError> {
        let numbering = self.numbering.clone();
        let page = self.readers.read(move |connection| page(connection, &numbering, limit, after, account_id));
        page.await?.ok_or(CardError::InvalidAfter)
    }

    /// Ends the writer thread once everything accepted so far is durable.
    pub(crate) fn stop(&self) {
        self.writer.stop();
    }
}

/// Card numbers from countries and sequences, and back.
#[derive(Clone)]
pub(crate) struct CardNumbering(Numbering);

impl CardNumbering {
    pub(crate) fn number(&self, country: CountryCode, sequence: u64) -> String {
        format!("{country}-{}", self.0.digits(sequence))
    }

    fn parse(&self, number: &str) -> Option<(CountryCode, u64)> {
        let (country, digits) = number.split_once('-')?;
        Some((country.parse().ok()?, self.0.sequence(digits)?))
    }
}

pub(crate) fn card_by_id(
    connection: &Connection,
    numbering: &CardNumbering,
    id: Uuid,
) -> rusqlite::Result<Option<Card>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM cards WHERE id = ?"))?;
    statement.query_row([id.as_bytes()], |row| card_from_row(row, numbering)).optional()
}

/// `None` if `after` is no card.
fn page(
    connection: &Connection,
    numbering: &CardNumbering,
    limit: usize,
    after: Option<Uuid>,
    account_id: Option<AccountId>,
) -> rusqlite::Result<Option<Page>> {
    let before = match after {
        None => i64::MAX,
        Some(id) => {
            let mut statement = connection.prepare_cached("SELECT sequence FROM cards WHERE id = ?")?;
            match statement.query_row([id.as_bytes()], |row| row.get(0)).optional()? {
                None => return Ok(None),
                Some(sequence) => sequence,
            }
        }
    };
    let filter = if account_id.is_some() { "account_id = ?3 AND" } else { "?3 IS NULL AND" };
    let sql = format!("SELECT {COLUMNS} FROM cards WHERE {filter} sequence < ?1 ORDER BY sequence DESC LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let account = account_id.map(|id| id.0.into_bytes());
    // One more than asked for tells whether there are more.
    let rows = statement.query_map(params![before, limit as i64 + 1, account], |row| card_from_row(row, numbering))?;
    let mut cards = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let more = cards.len() > limit;
    cards.truncate(limit);
    let total = match account {
        None => "SELECT cards FROM ledger WHERE ?1 IS NULL",
        Some(_) => "SELECT cards FROM card_accounts WHERE account_id = ?1",
    };
    let total = connection.prepare_cached(total)?.query_row([account], |row| row.get::<_, i64>(0)).optional()?;
    Ok(Some(Page { cards, total: total.unwrap_or(0) as u64, more }))
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

impl From<rusqlite::Error> for CardError {
    fn from(error: rusqlite::Error) -> Self {
        CardError::Store(StoreError::from(error))
    }
}
