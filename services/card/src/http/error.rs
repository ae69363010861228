//! The errors of the card service, and their responses: the texts and codes of docs/api.md. `http_server` answers requests
//! whose JSON, body or query cannot be parsed.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use group_commit::StoreError;
use http_server::ApiError;

/// Why a request was refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CardError {
    /// A creation without a country.
    #[error("country is required")]
    MissingCountry,
    /// A country code that does not exist.
    #[error("country {0}")]
    InvalidCountry(#[from] country_code::InvalidCountryCode),
    /// A creation without an account.
    #[error("account ID is required")]
    MissingAccountId,
    /// An `account_id` that is not an account id.
    #[error("account_id {0}")]
    InvalidAccountId(#[from] account_events::InvalidAccountId),
    /// No `?id=`.
    #[error("Missing required query parameter: id")]
    MissingId,
    /// An `?id=` that is not a card id.
    #[error("id must be a UUID such as 7c9e6679-7425-40de-944b-e07fc1f90ae7")]
    InvalidId,
    /// No `?card_number=`.
    #[error("card number is required")]
    MissingNumber,
    /// An `?after=` that is not the `next` of a page.
    #[error("after must be the next of an earlier page")]
    InvalidAfter,
    /// No event about the account has been read.
    #[error("account not found")]
    AccountNotFound,
    /// The account is deleted according to the view or the card database.
    #[error("cannot create card for deleted account")]
    AccountDeleted,
    /// The account is blocked.
    #[error("cannot create card for inactive account")]
    AccountInactive,
    /// The view has not reached the end of the event log yet, or is older than the operator allows.
    #[error("account view is catching up")]
    CatchingUp,
    /// A `?buckets=` that is not the number of a digest's buckets.
    #[error("buckets must be a number from 1 to {}", account_events::digest::MAX_BUCKETS)]
    InvalidBuckets,
    /// A `?from=` that is not a list of offsets.
    #[error("from must be a list such as 0:17,1:4 of partitions with offsets")]
    InvalidFrom,
    /// The event log cannot be read.
    #[error("the event log cannot be read now")]
    LogUnavailable,
    /// The card does not exist, and never did. A deleted card exists.
    #[error("card not found")]
    NotFound,
    /// A deletion of a deleted card.
    #[error("card is already deleted")]
    AlreadyDeleted,
    /// The condition of `If-None-Match` does not hold.
    #[error("the card exists, which If-None-Match excludes")]
    Exists,
    /// The database failed or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CardError> for ApiError {
    fn from(error: CardError) -> Self {
        let text = error.to_string();
        let invalid = |code, field: &'static str, text| ApiError::invalid(field, code, text);
        // `Retry-After` in seconds: by then the queue has room, or the database has restarted.
        let unavailable = |code, text| ApiError::unavailable(code, text, 1);
        match error {
            CardError::MissingCountry => invalid("missing_country", "country", text),
            CardError::InvalidCountry(_) => invalid("invalid_country", "country", text),
            CardError::MissingAccountId => invalid("missing_account_id", "account_id", text),
            CardError::InvalidAccountId(_) => invalid("invalid_account_id", "account_id", text),
            CardError::MissingId => invalid("missing_id", "id", text),
            CardError::InvalidId => invalid("invalid_id", "id", text),
            CardError::MissingNumber => invalid("missing_card_number", "card_number", text),
            CardError::InvalidAfter => invalid("invalid_after", "after", text),
            CardError::AccountNotFound => ApiError::not_found("account_not_found", text),
            CardError::AccountDeleted => ApiError::forbidden("account_deleted", text),
            CardError::AccountInactive => ApiError::forbidden("account_inactive", text),
            CardError::CatchingUp => ApiError::unavailable("catching_up", text, 1),
            CardError::InvalidBuckets => invalid("invalid_buckets", "buckets", text),
            CardError::InvalidFrom => invalid("invalid_from", "from", text),
            CardError::LogUnavailable => unavailable("log_unavailable", "the event log cannot be read now"),
            CardError::NotFound => ApiError::not_found("card_not_found", text),
            CardError::AlreadyDeleted => ApiError::conflict("card_already_deleted", text),
            CardError::Exists => ApiError::precondition_failed("precondition_failed", text),
            CardError::Store(StoreError::Rejected(_) | StoreError::Damaged(_)) => {
                let text = "the database does not accept this request; the logs tell more";
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "storage_rejected", text)
            }
            CardError::Store(StoreError::Overloaded) => {
                unavailable("overloaded", "too many requests are waiting, try again")
            }
            CardError::Store(StoreError::Unavailable(_) | StoreError::Conflict(_)) => {
                unavailable("storage_unavailable", "the database is unavailable, try again")
            }
            CardError::Store(StoreError::Stopping) => unavailable("stopping", "the service is stopping, try again"),
        }
    }
}

impl IntoResponse for CardError {
    fn into_response(self) -> Response {
        ApiError::from(self).into_response()
    }
}
