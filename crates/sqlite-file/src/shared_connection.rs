//! A connection that [`SqliteFile::close`](crate::SqliteFile::close) can close.

use std::sync::Arc;

use group_commit::StoreError;
use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;

use crate::DatabaseFile;
use crate::durability::storage_failed;

/// A connection that its file closes even while its owner is blocked elsewhere, for example in a call to Kafka. Clones share
/// the connection.
#[derive(Debug, Clone)]
pub struct SharedConnection {
    /// `None` once it is closed.
    connection: Arc<Mutex<Option<Connection>>>,
    file: DatabaseFile,
}

impl SharedConnection {
    pub(crate) fn new(connection: Connection, file: DatabaseFile) -> Self {
        SharedConnection { connection: Arc::new(Mutex::new(Some(connection))), file }
    }

    /// Runs `work` on the connection, unless it is closed or the storage has failed.
    pub fn run<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        if self.file.fail_stop().has_failed() {
            return Err(storage_failed());
        }
        let connection = self.lock();
        let connection = connection.as_ref().ok_or(StoreError::Stopping)?;
        self.file.check(work(connection)).map_err(unavailable)
    }

    /// Waits for the work that runs on the connection, and closes it.
    pub(crate) fn close(&self) {
        drop(self.lock().take());
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock()
    }

    /// Returns `None` if work runs on the connection.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, Option<Connection>>> {
        self.connection.try_lock()
    }
}

/// The error of work that belongs to no command, so that none is at fault.
pub(crate) fn unavailable(error: rusqlite::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}
