//! Why a database operation failed, in terms that both databases share.
//!
//! The conversions from the drivers' errors are here because Rust lets only the crate of [`StoreError`] implement them.

use std::error::Error as _;

use rusqlite::ErrorCode;
use tokio_postgres::error::SqlState;

/// Why a database operation failed. Domain rules are not errors: they are outcomes of a command.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The queue is full. Nothing was written.
    #[error("too many requests are waiting for the database")]
    Overloaded,
    /// The database failed. The transaction is not committed, except that a connection lost during COMMIT leaves the outcome
    /// unknown.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The database rejects the data of this command. Nothing was written, and a retry fails too. Other commands are not
    /// affected.
    #[error("the database rejected the command: {0}")]
    Rejected(String),
    /// A stored row that the command needs cannot be read. Nothing was written, and a retry fails too. Commands that do not
    /// need the row are not affected.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// A concurrent transaction conflicted, or has locked a row for too long. Nothing was written, and a retry may succeed.
    #[error("a concurrent transaction conflicts: {0}")]
    Conflict(String),
    /// The service is stopping. Nothing was written.
    #[error("the service is stopping")]
    Stopping,
}

impl StoreError {
    /// What a client may know: whether a retry may succeed, a code for programs, and a text for people.
    pub fn public(&self) -> (bool, &'static str, &'static str) {
        match self {
            StoreError::Overloaded => (true, "overloaded", "too many requests are waiting, try again"),
            StoreError::Unavailable(_) | StoreError::Conflict(_) => {
                (true, "storage_unavailable", "the database is unavailable, try again")
            }
            StoreError::Rejected(_) | StoreError::Damaged(_) => {
                (false, "storage_rejected", "the database does not accept this request; the logs tell more")
            }
            StoreError::Stopping => (true, "stopping", "the service is stopping, try again"),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        match error {
            rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::ConstraintViolation | ErrorCode::TooBig => StoreError::Rejected(text),
                ErrorCode::DatabaseCorrupt => StoreError::Damaged(text),
                _ => StoreError::Unavailable(text),
            },
            // A stored value is not what this service writes.
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..) => StoreError::Damaged(text),
            _ => StoreError::Unavailable(text),
        }
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let text = postgres_message(&error);
        match error.code() {
            Some(
                &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED | &SqlState::LOCK_NOT_AVAILABLE,
            ) => StoreError::Conflict(text),
            Some(&SqlState::DATA_CORRUPTED | &SqlState::INDEX_CORRUPTED) => StoreError::Damaged(text),
            Some(code) if is_data_error(code.code()) => StoreError::Rejected(text),
            _ => StoreError::Unavailable(text),
        }
    }
}

/// The server's message if there is one. The driver's own text for it is only "db error".
pub fn postgres_message(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(db), _) => db.message().to_owned(),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

/// SQLSTATE classes, and codes, that do not depend on a statement's data: connection, transaction or session state, rights,
/// missing objects, resources, operator intervention, system errors. The data causes all others: class 22, 23, 44, P0 and
/// what a trigger raises.
const NOT_DATA_ERRORS: [&str; 20] = [
    "00", "01", "02", "08", "0A", "25", "26", "28", "2D", "34", "3D", "3F", "40", "42", "53", "55", "57", "58", "F0",
    "XX",
];

fn is_data_error(code: &str) -> bool {
    !NOT_DATA_ERRORS.iter().any(|class| code.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_data_errors_reject_a_command() {
        // Text that the encoding lacks, a constraint, a trigger's RAISE, a view's check, an index row that is too large.
        for code in ["22021", "23505", "23514", "P0001", "44000", "54000", "U0001"] {
            assert!(is_data_error(code), "{code}");
        }
        // Connection, fail-over, deadlock, rights, resources, shutdown, a bug of the server's.
        for code in ["08006", "25006", "40P01", "42501", "42P01", "53300", "57P01", "57014", "58030", "XX000"] {
            assert!(!is_data_error(code), "{code}");
        }
    }
}
