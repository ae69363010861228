//! The errors of the account service, and their responses: the texts and codes of docs/api.md. `http_server` answers
//! requests whose JSON, body or query cannot be parsed.

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
        /// The first missing field.
        field: &'static str,
    },
    /// An update with a name of nothing but spaces.
    #[error("beholder_name must not be empty")]
    EmptyName,
    /// A name that breaks a rule.
    #[error("beholder_name {0}")]
    InvalidName(#[from] InvalidBeholderName),
    /// A country code that does not exist.
    #[error("country_code {0}")]
    InvalidCountry(#[from] country_code::InvalidCountryCode),
    /// A status other than the three.
    #[error("status must be ACTIVE, BLOCKED or DELETED")]
    InvalidStatus,
    /// An update without a field.
    #[error("an update needs at least one of beholder_name, country_code and status")]
    NothingToUpdate,
    /// No `?id=`.
    #[error("Missing required query parameter: id")]
    MissingId,
    /// An `?id=` that is not an account id.
    #[error("id {0}")]
    InvalidId(#[from] account_events::InvalidAccountId),
    /// No `?account_number=`.
    #[error("Account number parameter is required")]
    MissingNumber,
    /// An `?after=` that is not the `next` of a page.
    #[error("after must be the next of an earlier page")]
    InvalidAfter,
    /// A `?buckets=` that is not the number of a digest's buckets.
    #[error("buckets must be a number from 1 to {}", account_events::digest::MAX_BUCKETS)]
    InvalidBuckets,
    /// The account does not exist, and never did. A deleted account exists.
    #[error("account not found")]
    NotFound,
    /// An update of a deleted account: `DELETED` is final.
    #[error("cannot update deleted account")]
    CannotUpdateDeleted,
    /// A deletion of a deleted account.
    #[error("account is already deleted")]
    AlreadyDeleted,
    /// The condition of `If-Match` does not hold.
    #[error("the account has version {version}, which If-Match does not name")]
    VersionMismatch {
        /// The account's version.
        version: Version,
    },
    /// The condition of `If-None-Match` does not hold.
    #[error("the account has version {version}, which If-None-Match names")]
    VersionMatch {
        /// The account's version.
        version: Version,
    },
    /// The database takes no writes: the event log knows more than it, or belongs to another one.
    #[error("this account database is superseded and takes no writes; /readyz says why")]
    Superseded,
    /// The database failed or refused.
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
            AccountError::InvalidBuckets => invalid("invalid_buckets", "buckets", text),
            AccountError::NotFound => ApiError::not_found("account_not_found", text),
            AccountError::CannotUpdateDeleted => ApiError::conflict("account_deleted", text),
            AccountError::AlreadyDeleted => ApiError::conflict("account_already_deleted", text),
            AccountError::VersionMismatch { .. } => ApiError::precondition_failed("version_mismatch", text),
            AccountError::VersionMatch { .. } => ApiError::precondition_failed("precondition_failed", text),
            AccountError::Superseded => ApiError::unavailable("database_superseded", text, 1),
            AccountError::Store(StoreError::Rejected(_) | StoreError::Damaged(_)) => {
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
