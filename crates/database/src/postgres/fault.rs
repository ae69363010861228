//! What an error of PostgreSQL means for whoever asked, told by its SQLSTATE and never by its text.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::StoreError;

/// Classes of SQLSTATE, and codes, that say nothing about the data of a statement: the connection, a transaction's or a
/// session's state, rights, missing objects, resources, an operator, the system. All others are caused by the data:
/// class 22, 23, 44, P0 and those that a trigger may raise.
const NOT_OF_THE_DATA: [&str; 20] = [
    "00", "01", "02", "08", "0A", "25", "26", "28", "2D", "34", "3D", "3F", "40", "42", "53", "55", "57", "58", "F0",
    "XX",
];

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let text = describe(&error);
        match error.code() {
            // Another transaction was in the way, and this one was rolled back: a retry may succeed.
            Some(
                &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED | &SqlState::LOCK_NOT_AVAILABLE,
            ) => StoreError::Conflict(text),
            // A page that one command needs, and its neighbours do not.
            Some(&SqlState::DATA_CORRUPTED | &SqlState::INDEX_CORRUPTED) => StoreError::Rejected(text),
            Some(code) if is_of_the_data(code.code()) => StoreError::Rejected(text),
            _ => StoreError::Unavailable(text),
        }
    }
}

fn is_of_the_data(code: &str) -> bool {
    !NOT_OF_THE_DATA.iter().any(|class| code.starts_with(class))
}

/// Whether the server cancelled the statement: its time was over.
pub(super) fn is_cancelled(error: &Error) -> bool {
    error.code() == Some(&SqlState::QUERY_CANCELED)
}

/// Whether a start may succeed later without a change of settings: the server is away, starts, fails over or is full.
pub(super) fn may_pass(error: &Error) -> bool {
    match error.as_db_error() {
        // PgBouncer gives all its errors this code.
        Some(db) if db.code() == &SqlState::PROTOCOL_VIOLATION => {
            !["unsupported startup parameter", "SSL required", "no such database"]
                .iter()
                .any(|permanent| db.message().contains(permanent))
        }
        Some(db) => {
            db.code() == &SqlState::READ_ONLY_SQL_TRANSACTION
                || db.code() == &SqlState::LOCK_NOT_AVAILABLE
                || ["08", "40", "53", "57", "58"].iter().any(|class| db.code().code().starts_with(class))
        }
        // The client's own refusals, such as a missing password, have a cause that is no failure of the network.
        None => error.source().is_none_or(|cause| cause.is::<std::io::Error>()),
    }
}

/// Whether a URL cannot be parsed because it asks for a TLS that the driver does not know, such as `sslmode=verify-full`.
pub(super) fn is_about_tls(error: &Error) -> bool {
    error.source().is_some_and(|cause| cause.to_string().contains("`sslmode`"))
}

/// The server's own words where it has some: the client's say only "db error", or what it was at and not what went wrong.
pub(super) fn describe(error: &Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(db), _) => db.message().to_owned(),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_at_fault_where_nothing_else_is() {
        // Text that the encoding lacks, a constraint, a trigger's RAISE, a view's check, an index row that is too large.
        for code in ["22021", "23505", "23514", "P0001", "44000", "54000", "U0001"] {
            assert!(is_of_the_data(code), "{code}");
        }
        // Connection, fail-over, deadlock, rights, resources, shutdown, a bug of the server's.
        for code in ["08006", "25006", "40P01", "42501", "42P01", "53300", "57P01", "57014", "58030", "XX000"] {
            assert!(!is_of_the_data(code), "{code}");
        }
    }
}
