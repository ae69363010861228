//! The responses to errors: the statuses and codes of docs/api.md. `http_server` answers requests whose JSON, body or query cannot be
//! parsed.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use group_commit::StoreError;
use http_server::ApiError;

use crate::error::CardError;

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
