//! A connection that its file can close.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use rusqlite::Connection;

use super::durability::storage_failed;
use crate::DatabaseFile;
use group_commit::StoreError;

/// A connection that [`SqliteFile::close`](super::SqliteFile::close) closes while its owner is blocked elsewhere, as a
/// relay is that waits for Kafka. Clones are of the same connection.
#[derive(Debug, Clone)]
pub struct SharedConnection {
    /// `None` once it is closed.
    connection: Arc<Mutex<Option<Connection>>>,
    file: DatabaseFile,
}

impl SharedConnection {
    pub(super) fn new(connection: Connection, file: DatabaseFile) -> Self {
        SharedConnection { connection: Arc::new(Mutex::new(Some(connection))), file }
    }

    /// Runs `work` on the connection, unless it is closed or the storage has failed.
    pub fn run<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        if self.file.fail_stop().has_failed() {
            return Err(storage_failed());
        }
        let connection = self.lock();
        let connection = connection.as_ref().ok_or(StoreError::Stopping)?;
        Ok(self.file.check(work(connection))?)
    }

    /// Waits until what it runs has ended, and closes it.
    pub(super) fn close(&self) {
        drop(self.lock().take());
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        // A transaction that panicked has been rolled back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` if something runs on it.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Option<Connection>>> {
        match self.connection.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}
