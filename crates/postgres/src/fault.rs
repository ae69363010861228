//! What an error of PostgreSQL means for whoever asked, told by its SQLSTATE and never by its text.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

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
