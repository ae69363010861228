//! A connection that [`SqliteFile::close`](crate::SqliteFile::close) can close.

use std::sync::Arc;

use group_commit::StoreError;
use parking_lot::Mutex;
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
        let connection = self.connection.lock();
        let connection = connection.as_ref().ok_or(StoreError::Stopping)?;
        // The work belongs to no command of a batch, so no command is at fault.
        self.file.check(work(connection)).map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    /// Waits for the work that runs on the connection, and closes it.
    pub(crate) fn close(&self) {
        drop(self.connection.lock().take());
    }

    /// Whether work runs on the connection.
    pub(crate) fn is_busy(&self) -> bool {
        self.connection.is_locked()
    }
}
