//! Whether the disk has failed to take what was written to a file.
//!
//! The system tells of that once, to whoever syncs next, and then forgets the pages: another sync says that all is well, and
//! proves nothing. SQLite copies no page from the write-ahead log twice, so the log alone has them, until a start copies all of it
//! anew. From a failure on it is kept, and only becomes longer; commits go on, since they are durable there.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::ffi::SQLITE_IOERR_FSYNC;

/// One for a file, shared by all that sync it.
#[derive(Default)]
pub(super) struct Disk {
    has_failed: AtomicBool,
}

impl Disk {
    /// Whether it ever has.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// Notes that it has, by this `error`.
    pub(super) fn fail(&self, error: &dyn Display) {
        if !self.has_failed.swap(true, Ordering::AcqRel) {
            tracing::error!(%error, "the disk failed: the write-ahead log is kept, and becomes longer until a restart");
        }
    }

    /// Notes what moving the log has come to, if that is by the disk.
    pub(super) fn note(&self, error: &rusqlite::Error) {
        if error.sqlite_error().is_some_and(|error| error.extended_code == SQLITE_IOERR_FSYNC) {
            self.fail(error);
        }
    }
}
