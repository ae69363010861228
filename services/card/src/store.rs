//! The card database, as handlers and background threads use it. One writer an instance commits commands in groups. Reads use other connections
//! and see each commit that was answered.
//!
//! The database is a SQLite file ([`sqlite`]) or PostgreSQL ([`postgres`]), which instances share. `decide` decides what both write.

mod postgres;
mod sqlite;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use ::postgres::DatabaseUrl;
use account_events::AccountId;
use clock::Clock;
use country_code::CountryCode;
use group_commit::{GroupCommit, KeyExpiry, StoreError};
use http_server::{CallerName, KeyedRequest, Page};
use sqlite_file::FailStop;
use uuid::Uuid;

use crate::Config;
use crate::accounts::checkpoint::Database;
use crate::accounts::quarantine::{Dropped, Place, QuarantinedRecord, StoredRecord};
use crate::accounts::view::format::CardDatabase;
use crate::card::{Card, CardChange};
use crate::card_number::CardNumbering;
use crate::decide::{Command, Outcome};
use crate::error::CardError;
use crate::idempotency::Done;

/// The database, for handlers and loops.
#[derive(Clone)]
pub struct Store {
    writer: GroupCommit<Command, Outcome>,
    reader: Arc<Reader>,
    numbering: CardNumbering,
    /// The sequence of the last card that this instance knows.
    last_card: Arc<AtomicU64>,
    /// Records that the quarantine had no room for.
    dropped: Dropped,
    clock: Clock,
    keys: KeyExpiry,
}

/// Sequences that are left out above the last card in a checkpoint, which is at most five minutes old.
const SEQUENCE_MARGIN: u64 = 1_000_000;

#[expect(clippy::large_enum_variant, reason = "there is one")]
enum Reader {
    Sqlite(sqlite::Reader),
    Postgres(postgres::Reader),
}

/// Which page of which cards.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest {
    /// The most cards on the page.
    pub limit: usize,
    /// The last card of the page before.
    pub after: Option<Uuid>,
    /// Only cards of this account.
    pub account_id: Option<AccountId>,
}

/// The identity of a database: a value of its secret permutation, which copies share.
fn database_id(numbering: &CardNumbering) -> u64 {
    numbering.0.sequence_of_id(Uuid::nil())
}

/// The sequence above which an older copy of the database goes on; `None` if the database has every card that the checkpoint knows.
fn floor(checkpoint: Option<CardDatabase>, numbering: &CardNumbering, last_card: u64) -> Option<u64> {
    let known = checkpoint.filter(|known| known.id == database_id(numbering) && known.last_card > last_card)?;
    tracing::warn!(
        last_card,
        known = known.last_card,
        "the card database is an older copy: card numbers go on above those that were issued"
    );
    Some(known.last_card + SEQUENCE_MARGIN)
}

impl Store {
    /// Opens the database of `config`, and gives the writer's thread to join after [`Store::stop`]. If the checkpoint knows a later card than
    /// the database, which is an older copy then, sequences go on above that card, so that no number is issued twice.
    pub(crate) async fn open(
        config: &Config,
        checkpoint: Option<CardDatabase>,
    ) -> anyhow::Result<(Self, JoinHandle<()>)> {
        let (clock, keys) = (config.clock.clone(), KeyExpiry::new(config.http.keep_idempotency_keys));
        match &config.database {
            DatabaseUrl::Sqlite(path) => Ok(sqlite::open(path, clock, keys, checkpoint)?),
            DatabaseUrl::Postgres(url) => Ok(postgres::open(url, clock, keys, checkpoint).await?),
        }
    }

    /// The database, for checkpoints.
    pub(crate) fn identity(&self) -> Database {
        Database { id: database_id(&self.numbering), last_card: Arc::clone(&self.last_card) }
    }

    /// Creates a card, unless the account is closed in the database, and stores its key in the same transaction.
    pub(crate) async fn create(
        &self,
        country: CountryCode,
        account_id: AccountId,
        CallerName(caller): CallerName,
        key: Option<Arc<KeyedRequest>>,
    ) -> Result<Done, CardError> {
        self.writer.submit(Command::Create { country, account_id, caller, key }).await?
    }

    /// Deletes a card, and stores the key in the same transaction.
    pub(crate) async fn delete(
        &self,
        id: Uuid,
        CallerName(caller): CallerName,
        key: Option<Arc<KeyedRequest>>,
    ) -> Result<Done, CardError> {
        self.writer.submit(Command::Delete { id, caller, key }).await?
    }

    /// The outcome of a request whose key is stored; `None` if it is not.
    pub(crate) async fn replay(&self, request: Option<&KeyedRequest>) -> Result<Option<Done>, CardError> {
        let Some(request) = request else { return Ok(None) };
        let (key, expired) = (request.key.clone(), self.keys.expired(self.clock.now().as_microsecond()));
        let stored = match &*self.reader {
            Reader::Sqlite(reader) => reader.stored_key(key, expired).await?,
            Reader::Postgres(reader) => reader.stored_key(key, expired).await?,
        };
        stored.map(|stored| stored.replay(request)).transpose()
    }

    /// Closes `accounts`: deletes all their cards and refuses new ones. Durable when it returns. Blocks.
    pub(crate) fn close_accounts(&self, accounts: Vec<AccountId>) -> Result<(), CardError> {
        self.writer.submit_blocking(Command::CloseAccounts(accounts))?.map(|_| ())
    }

    /// Stores records in quarantine. Blocks.
    pub(crate) fn quarantine(&self, records: Vec<QuarantinedRecord>) -> Result<(), CardError> {
        self.writer.submit_blocking(Command::Quarantine(records))?.map(|_| ())
    }

    /// The records that found no room in quarantine since the start.
    pub(crate) fn dropped(&self) -> &Dropped {
        &self.dropped
    }

    /// A page of the quarantine, by partition and offset. `after` is the last place of the page before.
    pub(crate) async fn quarantined(
        &self,
        limit: usize,
        after: Option<Place>,
    ) -> Result<Page<StoredRecord>, CardError> {
        Ok(match &*self.reader {
            Reader::Sqlite(reader) => reader.quarantined(limit, after).await?,
            Reader::Postgres(reader) => reader.quarantined(limit, after).await?,
        })
    }

    /// All places in quarantine, about [`MAX_RECORDS`](crate::accounts::quarantine::MAX_RECORDS) at most.
    pub(crate) async fn quarantined_places(&self) -> Result<HashSet<Place>, StoreError> {
        match &*self.reader {
            Reader::Sqlite(reader) => reader.quarantined_places().await,
            Reader::Postgres(reader) => reader.quarantined_places().await,
        }
    }

    /// Removes the records at `places` from quarantine. Blocks.
    pub(crate) fn remove_quarantined(&self, places: Vec<Place>) -> Result<(), CardError> {
        self.writer.submit_blocking(Command::Acknowledge { places, key: None })?.map(|_| ())
    }

    /// Removes the record at `place` from quarantine, and stores the key in the same transaction.
    pub(crate) async fn acknowledge(&self, place: Place, key: Option<Arc<KeyedRequest>>) -> Result<Done, CardError> {
        let is_stored = match &*self.reader {
            Reader::Sqlite(reader) => reader.is_quarantined(place).await?,
            Reader::Postgres(reader) => reader.is_quarantined(place).await?,
        };
        match is_stored {
            true => self.writer.submit(Command::Acknowledge { places: vec![place], key }).await?,
            // An earlier request with the same key may have removed the record.
            false => self.replay(key.as_deref()).await?.ok_or(CardError::NotQuarantined),
        }
    }

    /// The card with this id.
    pub async fn card(&self, id: Uuid) -> Result<Card, CardError> {
        let card = match &*self.reader {
            Reader::Sqlite(reader) => reader.card(id).await?,
            Reader::Postgres(reader) => reader.card(id).await?,
        };
        card.ok_or(CardError::NotFound)
    }

    /// The card with this number.
    pub async fn card_by_number(&self, number: &str) -> Result<Card, CardError> {
        let (country, sequence) = self.numbering.parse(number).ok_or(CardError::NotFound)?;
        let card = match &*self.reader {
            Reader::Sqlite(reader) => reader.card_by_sequence(sequence).await?,
            Reader::Postgres(reader) => reader.card_by_sequence(sequence).await?,
        };
        card.filter(|card| card.country == country).ok_or(CardError::NotFound)
    }

    /// What happened to the card with this id, newest first.
    pub async fn history(&self, id: Uuid) -> Result<Vec<CardChange>, CardError> {
        let history = match &*self.reader {
            Reader::Sqlite(reader) => reader.history(id).await?,
            Reader::Postgres(reader) => reader.history(id).await?,
        };
        history.ok_or(CardError::NotFound)
    }

    /// A page of cards, newest first.
    pub async fn page(&self, request: PageRequest) -> Result<Page<Card>, CardError> {
        let page = match &*self.reader {
            Reader::Sqlite(reader) => reader.page(request).await?,
            Reader::Postgres(reader) => reader.page(request).await?,
        };
        page.ok_or(CardError::InvalidAfter)
    }

    /// Why the database cannot be written or read now.
    pub(crate) fn failures(&self) -> impl Iterator<Item = String> {
        let reads = match &*self.reader {
            Reader::Sqlite(reader) => reader.pool.failure(),
            Reader::Postgres(reader) => reader.database.failure(),
        };
        self.writer.failure().into_iter().chain(reads)
    }

    /// Why some reads or changes fail while others succeed.
    pub(crate) fn warning(&self) -> Option<String> {
        let cause = match &*self.reader {
            Reader::Sqlite(reader) => reader.pool.warning(),
            Reader::Postgres(reader) => reader.database.warning(),
        };
        let reads = cause.map(|cause| format!("some reads fail: {cause}"));
        reads.or_else(|| self.writer.warning().map(|cause| format!("some changes fail: {cause}")))
    }

    /// Ends the process when the storage of the SQLite file fails. A PostgreSQL server handles its own storage.
    pub(crate) fn fail_stop(&self) -> FailStop {
        match &*self.reader {
            Reader::Sqlite(reader) => reader.pool.fail_stop().clone(),
            Reader::Postgres(_) => FailStop::default(),
        }
    }

    /// Closes the database. Call it after the writer thread has ended. Blocks.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        match &*self.reader {
            Reader::Sqlite(reader) => reader.pool.close(),
            Reader::Postgres(_) => Ok(()),
        }
    }

    /// Ends the writer thread after it has committed all accepted commands.
    pub(crate) fn stop(&self) {
        self.writer.stop()
    }
}
