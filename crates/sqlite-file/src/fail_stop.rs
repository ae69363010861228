//! Fail-stop: when the storage fails, the process stops and its restart recovers.
//!
//! The kernel reports a failed write-back to one fsync and then marks the pages clean, so a second fsync proves nothing.
//! PostgreSQL stops its server for the same reason. A disk without room is no such failure: the write is refused, the
//! transaction is rolled back, and a later one succeeds.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rusqlite::ffi;
use tokio_util::sync::CancellationToken;

/// Stops everything that writes to a file, and tells whoever runs the process. Clones are of the same file.
#[derive(Debug, Clone, Default)]
pub struct FailStop(Arc<State>);

#[derive(Debug, Default)]
struct State {
    cause: OnceLock<String>,
    failed: CancellationToken,
}

/// The storage failed. Only a restart recovers.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}: the process stops, and its restart recovers what was acknowledged")]
pub struct StorageFailed(String);

impl FailStop {
    /// Declares that the storage of `path` failed with `error`. From now on nothing more is written there.
    pub fn trigger(&self, path: &Path, error: &dyn Display) {
        let cause = format!("writing {} failed ({error})", path.display());
        if self.0.cause.set(cause).is_ok() {
            tracing::error!(path = %path.display(), %error, "the storage failed, stopping");
            self.0.failed.cancel();
        }
    }

    /// Whether the storage has failed.
    pub fn has_failed(&self) -> bool {
        self.0.failed.is_cancelled()
    }

    /// Waits until the storage fails, and returns the error that the process is to end with.
    pub async fn failed(&self) -> StorageFailed {
        self.0.failed.cancelled().await;
        StorageFailed(self.0.cause.get().cloned().unwrap_or_default())
    }
}

/// Whether `error`, which SQLite has just returned to this thread, says that the storage failed to take a write or an
/// fsync.
pub(crate) fn is_storage_failure(error: &rusqlite::Error) -> bool {
    let Some(code) = error.sqlite_error().map(|error| error.extended_code) else { return false };
    match code {
        ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC | ffi::SQLITE_IOERR_TRUNCATE => true,
        // SQLite reports only ENOSPC as a full disk. A quota, and a limit on the size of files, are full disks too.
        ffi::SQLITE_IOERR_WRITE => {
            let cause = io::Error::last_os_error().raw_os_error();
            !matches!(cause, Some(libc::EDQUOT | libc::EFBIG))
        }
        _ => false,
    }
}
