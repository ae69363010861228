//! Why a file cannot be opened.

use std::path::PathBuf;

/// Why a file cannot be used, in one line.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system or SQLite cannot create, open or lock it.
    #[error("cannot open {path}: {reason}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The error.
        reason: String,
    },
    /// Another process holds its lock.
    #[error("{0} is in use by another process: two would overwrite each other's rows")]
    InUse(PathBuf),
    /// It is not a SQLite file, or corrupt.
    #[error("{path} is damaged or no database ({reason}): restore it from a backup, or move it away to start empty")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        reason: String,
    },
    /// It is the database of another application.
    #[error("{path} is not a database of the {owner}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The service that tried to open it.
        owner: &'static str,
    },
    /// A newer binary has migrated it.
    #[error("{path} has schema version {found}, and this binary knows up to {known}: start the newer binary")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The last one this binary knows.
        known: usize,
    },
    /// An older version of the service owns it.
    #[error(
        "{path} has schema version {found}, and this binary needs {known}: start the newer version of the service first"
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The one this binary needs.
        known: usize,
    },
}
