//! What both services' databases need and no domain: where the database is ([`DatabaseUrl`]), one durable transaction for
//! many requests ([`GroupCommit`]), and the SQLite file with its migrations, its lock and its readers ([`sqlite`]).
//!
//! A service owns its database alone (ARCHITECTURE.md B4): a file is locked for one process, and says whose it is.

mod group_commit;
mod health;
mod open_error;
pub mod postgres;
pub mod sqlite;
mod url;

pub use group_commit::{Committer, GroupCommit, Syncer};
pub use health::Health;
pub use open_error::OpenError;
pub use sqlite_file::{FailStop, StorageFailed, UseProbe, create_folder, for_owner, warn_of_exposed};
pub use url::DatabaseUrl;

/// Why the database did not do what was asked. None of these is a rule of the domain: those are outcomes of a command.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// As many commands wait as may wait. Nothing was written.
    #[error("too many requests are waiting for the database")]
    Overloaded,
    /// The database failed. What was in the transaction is not written, or, where the connection was lost while it was
    /// committed, it may be.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The database does not take this command for what is in it, or cannot read a row that the command names. Nothing was
    /// written, and a retry fails too. Other commands are not affected.
    #[error("the database rejected the command: {0}")]
    Rejected(String),
    /// Another transaction was in the way. Nothing was written, and a retry may succeed.
    #[error("another transaction was in the way: {0}")]
    Conflict(String),
    /// The service is stopping. Nothing was written.
    #[error("the service is stopping")]
    Stopping,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        StoreError::Unavailable(error.to_string())
    }
}
