//! Classification of PostgreSQL errors by SQLSTATE.

use std::error::Error as _;
use std::io;

use group_commit::postgres_message;
use rustls::CertificateError;
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
        // An error of the driver itself, such as a missing password, has a cause that is not an I/O error. TLS reports its errors
        // as I/O errors; another attempt gets the same certificate.
        None => match error.source() {
            Some(cause) => cause.is::<io::Error>() && tls_error(error).is_none(),
            None => true,
        },
    }
}

/// The cause of `error` in one line.
pub(super) fn message(error: &Error) -> String {
    match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "the server's certificate is not signed by a CA that sslrootcert trusts".to_owned()
        }
        _ => postgres_message(error),
    }
}

/// The error of TLS in `error`, which wraps it in an I/O error.
fn tls_error(error: &Error) -> Option<&rustls::Error> {
    error.source()?.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
}
