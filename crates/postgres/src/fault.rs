//! Classification of PostgreSQL errors by SQLSTATE.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// Whether the server cancelled the statement because of its timeout.
pub(super) fn is_cancelled(error: &Error) -> bool {
    error.code() == Some(&SqlState::QUERY_CANCELED)
}

/// Whether a later attempt to start may succeed with the same settings: the server is down, starting, failing over or full.
pub(super) fn may_pass(error: &Error) -> bool {
    match error.as_db_error() {
        // PgBouncer uses this code for all of its errors.
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
        // An error of the driver itself, such as a missing password, has a cause that is not an I/O error.
        None => error.source().is_none_or(|cause| cause.is::<std::io::Error>()),
    }
}

/// Whether parsing a URL failed on an `sslmode` that the driver does not support, such as `verify-full`.
pub(super) fn is_about_tls(error: &Error) -> bool {
    error.source().is_some_and(|cause| cause.to_string().contains("`sslmode`"))
}
