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
    /// The idempotency key belongs to another request.
    #[error("the idempotency key belongs to another request")]
    KeyReused,
    /// The database takes no writes: the event log knows more than it, or belongs to another one.
    #[error("this account database is superseded and takes no writes; /readyz says why")]
    Superseded,
    /// The database failed or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        let mut text = error.to_string();
        let (status, code, field) = match error {
            AccountError::MissingFields { field } => (StatusCode::BAD_REQUEST, "missing_fields", Some(field)),
            AccountError::EmptyName | AccountError::InvalidName(_) => {
                (StatusCode::BAD_REQUEST, "invalid_beholder_name", Some("beholder_name"))
            }
            AccountError::InvalidCountry(_) => (StatusCode::BAD_REQUEST, "invalid_country_code", Some("country_code")),
            AccountError::InvalidStatus => (StatusCode::BAD_REQUEST, "invalid_status", Some("status")),
            AccountError::NothingToUpdate => (StatusCode::BAD_REQUEST, "nothing_to_update", None),
            AccountError::MissingId => (StatusCode::BAD_REQUEST, "missing_id", Some("id")),
            AccountError::InvalidId(_) => (StatusCode::BAD_REQUEST, "invalid_id", Some("id")),
            AccountError::MissingNumber => (StatusCode::BAD_REQUEST, "missing_account_number", Some("account_number")),
            AccountError::InvalidAfter => (StatusCode::BAD_REQUEST, "invalid_after", Some("after")),
            AccountError::InvalidBuckets => (StatusCode::BAD_REQUEST, "invalid_buckets", Some("buckets")),
            AccountError::NotFound => (StatusCode::NOT_FOUND, "account_not_found", None),
            AccountError::CannotUpdateDeleted => (StatusCode::CONFLICT, "account_deleted", None),
            AccountError::AlreadyDeleted => (StatusCode::CONFLICT, "account_already_deleted", None),
            AccountError::VersionMismatch { .. } => (StatusCode::PRECONDITION_FAILED, "version_mismatch", None),
            AccountError::VersionMatch { .. } => (StatusCode::PRECONDITION_FAILED, "precondition_failed", None),
            AccountError::KeyReused => {
                (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", Some("Idempotency-Key"))
            }
            AccountError::Superseded => (StatusCode::SERVICE_UNAVAILABLE, "database_superseded", None),
            AccountError::Store(error) => {
                let (is_temporary, code, public) = error.public();
                text = public.to_owned();
                (
                    if is_temporary { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::INTERNAL_SERVER_ERROR },
                    code,
                    None,
                )
            }
        };
        ApiError::of_service(status, code, text, field)
    }
}

impl IntoResponse for AccountError {
    fn into_response(self) -> Response {
        ApiError::from(self).into_response()
    }
}
