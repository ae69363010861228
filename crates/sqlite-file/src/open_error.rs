//! What stops a start.

use std::path::PathBuf;

/// Why a database cannot be used, as one line.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be made, opened or locked.
    #[error("cannot open {path}: {reason}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the system or SQLite said.
        reason: String,
    },
    /// Another process has it.
    #[error("{0} is in use by another process: two would overwrite each other's rows")]
    InUse(PathBuf),
    /// It is no SQLite file, or a broken one.
    #[error("{path} is damaged or no database ({reason}): restore it from a backup, or move it away to start empty")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        reason: String,
    },
    /// It belongs to somebody else.
    #[error("{path} is not a database of the {owner}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Who wanted it.
        owner: &'static str,
    },
    /// A newer version of the binary has written it.
    #[error("{path} has schema version {found}, and this binary knows up to {known}: start the newer binary")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The last one this binary knows.
        known: usize,
    },
    /// An older version of the service is in charge of it.
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
