//! The states of accounts and the positions of the outbox, for `tandem verify` (docs/decisions/0016).
//!
//! States are read in pages, each in a short transaction of its own. One snapshot of all accounts would keep SQLite from
//! truncating its write-ahead log, and PostgreSQL from vacuuming, for as long as the scan takes. An account that changes during the scan may be
//! listed in either state; the caller compares it again.

use account_events::AccountId;
use account_events::digest::StateLine;
use group_commit::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Reader, Store};

/// Accounts in one page of a scan: some 10 ms, so that other reads and WAL checkpoints go on in between.
const PAGE: usize = 10_000;

/// Where the outbox is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutboxPosition {
    /// The id of the database.
    pub(crate) database_id: String,
    /// The sequence of the last committed event.
    pub(crate) position: u64,
    /// The log has every event up to this sequence.
    pub(crate) published: u64,
}

/// A page of states, and the sequence of its last account; `None` after the last page.
pub(crate) type StatePage = (Vec<StateLine>, Option<u64>);

impl Store {
    /// The next page of all accounts' states, after the account with this sequence.
    pub(crate) async fn states_after(&self, sequence: u64) -> Result<StatePage, StoreError> {
        match &self.reader {
            Reader::Sqlite(reader) => reader.states_after(sequence, PAGE).await,
            Reader::Postgres(reader) => reader.states_after(sequence, PAGE).await,
        }
    }

    /// The states of those of `accounts` that exist.
    pub(crate) async fn states_of(&self, accounts: Vec<AccountId>) -> Result<Vec<StateLine>, StoreError> {
        match &self.reader {
            Reader::Sqlite(reader) => reader.states_of(accounts).await,
            Reader::Postgres(reader) => reader.states_of(&accounts).await,
        }
    }

    /// Where the outbox is now.
    pub(crate) async fn outbox_position(&self) -> Result<OutboxPosition, StoreError> {
        match &self.reader {
            Reader::Sqlite(reader) => reader.outbox_position().await,
            Reader::Postgres(reader) => reader.outbox_position().await,
        }
    }
}
