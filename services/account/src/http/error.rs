//! Everything that a request to the account service can fail with, and how each is answered: the texts and codes of
//! docs/api.md. What is wrong with the form of a request (JSON, body, query) is answered by `http_server` before it
//! gets here.

use account_events::Version;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use group_commit::StoreError;
use http_server::ApiError;

use crate::beholder_name::InvalidBeholderName;

/// Why a request was refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AccountError {
    /// A creation without a name or a country.
    #[error("all fields are required to create an account")]
    MissingFields {
        /// The first one that is missing.
        field: &'static str,
    },
    /// A name of nothing but spaces, in an update.
    #[error("beholder_name must not be empty")]
    EmptyName,
    /// A name that breaks a rule.
    #[error("beholder_name {0}")]
    InvalidName(#[from] InvalidBeholderName),
    /// A country that is none.
    #[error("country_code {0}")]
    InvalidCountry(#[from] country_code::InvalidCountryCode),
    /// A status outside the three.
    #[error("status must be ACTIVE, BLOCKED or DELETED")]
    InvalidStatus,
    /// An update of nothing.
    #[error("an update needs at least one of beholder_name, country_code and status")]
    NothingToUpdate,
    /// No `?id=`.
    #[error("Missing required query parameter: id")]
    MissingId,
    /// An `?id=` that is no id.
    #[error("id {0}")]
    InvalidId(#[from] account_events::InvalidAccountId),
    /// No `?account_number=`.
    #[error("Account number parameter is required")]
    MissingNumber,
    /// An `?after=` that no page gave.
    #[error("after must be the next of an earlier page")]
    InvalidAfter,
    /// There is no such account, and never was.
    #[error("account not found")]
    NotFound,
    /// Deleted is final.
    #[error("cannot update deleted account")]
    CannotUpdateDeleted,
    /// Deleted is final.
    #[error("account is already deleted")]
    AlreadyDeleted,
    /// The condition of `If-Match` does not hold.
    #[error("the account has version {version}, which If-Match does not name")]
    VersionMismatch {
        /// The version it has.
        version: Version,
    },
    /// The condition of `If-None-Match` does not hold.
    #[error("the account has version {version}, which If-None-Match names")]
    VersionMatch {
        /// The version it has.
        version: Version,
    },
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        let text = error.to_string();
        let invalid = |code, field: &'static str, text| ApiError::invalid(field, code, text);
        // A database's queue empties, and a server restarts, in about a second.
        let unavailable = |code, text| ApiError::unavailable(code, text, 1);
        match error {
            AccountError::MissingFields { field } => invalid("missing_fields", field, text),
            AccountError::EmptyName | AccountError::InvalidName(_) => {
                invalid("invalid_beholder_name", "beholder_name", text)
            }
            AccountError::InvalidCountry(_) => invalid("invalid_country_code", "country_code", text),
            AccountError::InvalidStatus => invalid("invalid_status", "status", text),
            AccountError::NothingToUpdate => ApiError::bad_request("nothing_to_update", text),
            AccountError::MissingId => invalid("missing_id", "id", text),
            AccountError::InvalidId(_) => invalid("invalid_id", "id", text),
            AccountError::MissingNumber => invalid("missing_account_number", "account_number", text),
            AccountError::InvalidAfter => invalid("invalid_after", "after", text),
            AccountError::NotFound => ApiError::not_found("account_not_found", text),
            AccountError::CannotUpdateDeleted => ApiError::conflict("account_deleted", text),
            AccountError::AlreadyDeleted => ApiError::conflict("account_already_deleted", text),
            AccountError::VersionMismatch { .. } => ApiError::precondition_failed("version_mismatch", text),
            AccountError::VersionMatch { .. } => ApiError::precondition_failed("precondition_failed", text),
            AccountError::Store(StoreError::Rejected(_)) => {
                let text = "the database does not accept this request; the logs tell more";
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "storage_rejected", text)
            }
            AccountError::Store(StoreError::Overloaded) => {
                unavailable("overloaded", "too many requests are waiting, try again")
            }
            AccountError::Store(StoreError::Unavailable(_) | StoreError::Conflict(_)) => {
                unavailable("storage_unavailable", "the database is unavailable, try again")
            }
            AccountError::Store(StoreError::Stopping) => unavailable("stopping", "the service is stopping, try again"),
        }
    }
}

impl IntoResponse for AccountError {
    fn into_response(self) -> Response {
        ApiError::from(self).into_response()
    }
}
