//! Fail-stop: when the storage fails, the process stops, and its restart recovers (docs/decisions/0011).
//!
//! The kernel reports a failed write to one fsync and then marks the pages clean, so a second fsync proves nothing.
//! PostgreSQL stops its server for the same reason. A full disk is not such a failure: SQLite rolls the transaction back, and
//! a later one may succeed.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rusqlite::ffi;
use tokio::sync::SetOnce;

/// Stops all writes to a file and reports the failure to `main`. Clones share the cause.
#[derive(Debug, Clone, Default)]
pub struct FailStop(Arc<SetOnce<String>>);

/// The storage failed, and the process stops.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct StorageFailed(String);

impl FailStop {
    /// Records that the storage of `path` failed with `error`.
    pub fn trigger(&self, path: &Path, error: &dyn Display) {
        let path = path.display();
        self.stop(format!(
            "writing {path} failed ({error}): the process stops, and its restart recovers what was acknowledged"
        ));
    }

    /// Records why the process must stop. Only the first call has an effect.
    pub fn stop(&self, cause: String) {
        if !self.has_failed() {
            // Logged first: once the cause is set, the process ends.
            tracing::error!(cause, "the storage failed, stopping");
            // A thread that was faster has logged its own cause.
            let _ = self.0.set(cause);
        }
    }

    /// Whether the storage has failed.
    pub fn has_failed(&self) -> bool {
        self.0.initialized()
    }

    /// Waits until the storage fails, and returns the error for the end of the process.
    pub async fn failed(&self) -> StorageFailed {
        StorageFailed(self.0.wait().await.clone())
    }
}

/// Whether `error`, which SQLite has just returned to this thread, is a failed write or fsync of the storage.
pub(crate) fn is_storage_failure(error: &rusqlite::Error) -> bool {
    let Some(code) = error.sqlite_error().map(|error| error.extended_code) else { return false };
    match code {
        ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC | ffi::SQLITE_IOERR_TRUNCATE => true,
        // SQLite reports only ENOSPC as a full disk. An exceeded quota or file size limit is treated like one.
        ffi::SQLITE_IOERR_WRITE => {
            let cause = io::Error::last_os_error().raw_os_error();
            !matches!(cause, Some(libc::EDQUOT | libc::EFBIG))
        }
        _ => false,
    }
}
