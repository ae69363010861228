//! The account database, as handlers use it. One writer an instance commits commands in groups. Reads use other connections
//! and see each commit that was answered.
//!
//! The database is a SQLite file ([`sqlite`]) or PostgreSQL ([`postgres`]), which instances share. `decide` decides what both write.

pub(crate) mod postgres;

pub(crate) mod sqlite;

pub(crate) mod states;

use std::sync::Arc;
use std::thread::JoinHandle;

use ::postgres::DatabaseUrl;
use account_events::digest::Republication;
use account_events::{AccountId, AccountStatus, TraceParent, Version};
use clock::Clock;
use country_code::CountryCode;
use group_commit::{GroupCommit, KeyExpiry, StoreError};
use http_server::{CallerName, KeyedRequest, Page};
use sqlite_file::FailStop;

use crate::account::{Account, BeholderName, Change, Precondition};
use crate::account_number::AccountNumbering;
use crate::config::Config;
use crate::decide::{Command, Outcome};
use crate::error::AccountError;
use crate::history::HistoryEntry;
use crate::idempotency::Done;
use crate::lineage::{Predecessor, SupersededState};
use crate::outbox::{Outbox, OutboxSignal};

/// The database, for handlers.
pub struct Store {
    writer: GroupCommit<Command, Outcome>,
    reader: Reader,
    numbering: AccountNumbering,
    superseded: SupersededState,
    clock: Clock,
    keys: KeyExpiry,
}

/// The most stored answers that one command erases: other requests wait while the transaction writes them.
const ERASED_AT_ONCE: usize = 1_000;

#[expect(clippy::large_enum_variant, reason = "there is one")]
enum Reader {
    Sqlite(sqlite::Reader),
    Postgres(postgres::Reader),
}

/// An open database: the store, the thread to join at the end, and the outbox for the relay.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) writer_thread: JoinHandle<()>,
    pub(crate) outbox: Box<dyn Outbox>,
}

/// Which page of which accounts.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest {
    /// The most accounts on the page.
    pub limit: usize,
    /// The last account of the page before.
    pub after: Option<AccountId>,
    /// Only accounts of this status.
    pub status: Option<AccountStatus>,
}

/// A part of the history of an account.
struct StoredHistory {
    creation: HistoryEntry,
    /// The requested changes, newest first.
    changes: Vec<HistoryEntry>,
}

impl Store {
    /// Opens the database of `config`. Whoever commits events signals `signal`. An empty database asks for its `predecessor`.
    pub(crate) async fn open(
        config: &Config,
        signal: OutboxSignal,
        predecessor: &Predecessor<'_>,
    ) -> anyhow::Result<Opened> {
        let (clock, keys) = (config.clock.clone(), KeyExpiry::new(config.http.keep_idempotency_keys));
        match &config.database {
            DatabaseUrl::Sqlite(path) => Ok(sqlite::open(path, clock, keys, signal, predecessor)?),
            DatabaseUrl::Postgres(url) => Ok(postgres::open(url, clock, keys, signal, predecessor).await?),
        }
    }

    /// Why the database takes no writes, if so. The relay sets it.
    pub(crate) fn superseded(&self) -> &SupersededState {
        &self.superseded
    }

    /// Runs a command. A database that is known to be superseded accepts none, and acknowledges none that it accepted before. It still
    /// repeats the answers that it has stored.
    async fn submit(&self, command: Command) -> Outcome {
        if let Err(superseded) = self.superseded.check() {
            let stored = match command.key() {
                Some(request) => self.replay(request).await?,
                None => None,
            };
            return stored.unwrap_or(Err(superseded));
        }
        let done = self.writer.submit(command).await??;
        if !done.is_replay {
            self.superseded.check()?;
        }
        Ok(done)
    }

    /// The outcome of a request whose key is stored; `None` if it is not.
    async fn replay(&self, request: &KeyedRequest) -> Result<Option<Outcome>, StoreError> {
        let (key, expired) = (request.key.clone(), self.keys.expired(self.clock.now().as_microsecond()));
        let stored = match &self.reader {
            Reader::Sqlite(reader) => reader.stored_key(key, expired).await?,
            Reader::Postgres(reader) => reader.stored_key(key, expired).await?,
        };
        Ok(stored.map(|stored| stored.replay(request)))
    }

    /// Creates an account, its event and its key in one transaction.
    pub async fn create(
        &self,
        beholder_name: BeholderName,
        country_code: CountryCode,
        trace: TraceParent,
        CallerName(caller): CallerName,
        key: Option<Arc<KeyedRequest>>,
    ) -> Result<Done, AccountError> {
        self.submit(Command::Create { beholder_name, country_code, trace, caller, key }).await
    }

    /// Changes an account, with its key and its event if the status changes, in one transaction.
    pub async fn change(
        &self,
        id: AccountId,
        change: Change,
        precondition: Precondition,
        trace: TraceParent,
        CallerName(caller): CallerName,
        key: Option<Arc<KeyedRequest>>,
    ) -> Result<Done, AccountError> {
        self.submit(Command::Change { id, change, precondition, trace, caller, key }).await
    }

    /// Publishes the state of an account again, in one transaction with what changes in the row.
    pub(crate) async fn republish(
        &self,
        republication: Republication,
        trace: TraceParent,
        CallerName(caller): CallerName,
    ) -> Result<Done, AccountError> {
        self.submit(Command::Republish { republication, trace, caller }).await
    }

    /// Erases the name of a deleted account, in the answers to repeated requests, too. Returns the account.
    ///
    /// A deleted account takes no more changes, so the keys that are read once it is deleted are all that name it.
    pub(crate) async fn erase(&self, id: AccountId, CallerName(caller): CallerName) -> Result<Account, AccountError> {
        if self.account(id).await?.status != AccountStatus::Deleted {
            return Err(AccountError::NotDeleted);
        }
        loop {
            let (expired, limit) = (self.keys.expired(self.clock.now().as_microsecond()), ERASED_AT_ONCE);
            let keys = match &self.reader {
                Reader::Sqlite(reader) => reader.keys_with_name(id, expired, limit).await?,
                Reader::Postgres(reader) => reader.keys_with_name(id, expired, limit).await?,
            };
            let is_last = keys.len() < limit;
            let done = self.submit(Command::Erase { id, keys, caller: caller.clone() }).await?;
            if is_last {
                return Ok(done.account);
            }
        }
    }

    /// The account with this id.
    pub async fn account(&self, id: AccountId) -> Result<Account, AccountError> {
        let account = match &self.reader {
            Reader::Sqlite(reader) => reader.account(id).await?,
            Reader::Postgres(reader) => reader.account(id).await?,
        };
        account.ok_or(AccountError::NotFound)
    }

    /// The account with this number.
    pub async fn account_by_number(&self, number: &str) -> Result<Account, AccountError> {
        let sequence = self.numbering.sequence(number).ok_or(AccountError::NotFound)?;
        let account = match &self.reader {
            Reader::Sqlite(reader) => reader.account_by_sequence(sequence).await?,
            Reader::Postgres(reader) => reader.account_by_sequence(sequence).await?,
        };
        account.ok_or(AccountError::NotFound)
    }

    /// A page of accounts, newest first.
    pub async fn page(&self, request: PageRequest) -> Result<Page<Account>, AccountError> {
        let page = match &self.reader {
            Reader::Sqlite(reader) => reader.page(request).await?,
            Reader::Postgres(reader) => reader.page(request).await?,
        };
        page.ok_or(AccountError::InvalidAfter)
    }

    /// Up to `limit` entries of the history of an account, newest first, all of versions below `before`.
    pub async fn history(
        &self,
        id: AccountId,
        before: Version,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, AccountError> {
        let history = match &self.reader {
            Reader::Sqlite(reader) => reader.history(id, before, limit).await?,
            Reader::Postgres(reader) => reader.history(id, before, limit).await?,
        };
        let StoredHistory { creation, mut changes } = history.ok_or(AccountError::NotFound)?;
        if changes.len() < limit && creation.version < before {
            changes.push(creation);
        }
        Ok(changes)
    }

    /// Why the database cannot be written or read now.
    pub(crate) fn failures(&self) -> impl Iterator<Item = String> {
        let reads = match &self.reader {
            Reader::Sqlite(reader) => reader.pool().failure(),
            Reader::Postgres(reader) => reader.database().failure(),
        };
        self.writer.failure().into_iter().chain(reads)
    }

    /// Why some reads or changes fail while others succeed.
    pub(crate) fn warning(&self) -> Option<String> {
        let cause = match &self.reader {
            Reader::Sqlite(reader) => reader.pool().warning(),
            Reader::Postgres(reader) => reader.database().warning(),
        };
        let reads = cause.map(|cause| format!("some reads fail: {cause}"));
        reads.or_else(|| self.writer.warning().map(|cause| format!("some changes fail: {cause}")))
    }

    /// Ends the process when the storage of the SQLite file fails, or when the PostgreSQL database was set back.
    pub(crate) fn fail_stop(&self) -> FailStop {
        match &self.reader {
            Reader::Sqlite(reader) => reader.pool().fail_stop().clone(),
            Reader::Postgres(reader) => reader.fail_stop().clone(),
        }
    }

    /// Closes the database. Call it after the writer thread has ended. Blocks.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        match &self.reader {
            Reader::Sqlite(reader) => reader.pool().close(),
            Reader::Postgres(_) => Ok(()),
        }
    }

    /// Ends the writer thread after it has committed all accepted commands.
    pub(crate) fn stop(&self) {
        self.writer.stop()
    }
}
