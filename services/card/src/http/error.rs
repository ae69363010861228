//! The responses to errors: the statuses and codes of docs/api.md. `http_server` answers requests whose JSON, body or query cannot be
//! parsed.

use account_events::InvalidAccountId;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use country_code::InvalidCountryCode;
use group_commit::StoreError;
use http_server::ApiError;

use crate::error::CardError;

impl From<CardError> for ApiError {
    fn from(error: CardError) -> Self {
        let mut text = error.to_string();
        let (status, code, field) = match error {
            CardError::MissingCountry => (StatusCode::BAD_REQUEST, "missing_country", Some("country")),
            CardError::InvalidCountry(_) => (StatusCode::BAD_REQUEST, "invalid_country", Some("country")),
            CardError::MissingAccountId => (StatusCode::BAD_REQUEST, "missing_account_id", Some("account_id")),
            CardError::InvalidAccountId(_) => (StatusCode::BAD_REQUEST, "invalid_account_id", Some("account_id")),
            CardError::MissingId => (StatusCode::BAD_REQUEST, "missing_id", Some("id")),
            CardError::InvalidId => (StatusCode::BAD_REQUEST, "invalid_id", Some("id")),
            CardError::MissingNumber => (StatusCode::BAD_REQUEST, "missing_card_number", Some("card_number")),
            CardError::InvalidAfter => (StatusCode::BAD_REQUEST, "invalid_after", Some("after")),
            CardError::AccountNotFound => (StatusCode::NOT_FOUND, "account_not_found", None),
            CardError::AccountDeleted => (StatusCode::FORBIDDEN, "account_deleted", None),
            CardError::AccountInactive => (StatusCode::FORBIDDEN, "account_inactive", None),
            CardError::CatchingUp => (StatusCode::SERVICE_UNAVAILABLE, "catching_up", None),
            CardError::InvalidAccountVersion => {
                (StatusCode::BAD_REQUEST, "invalid_account_version", Some("Account-Version"))
            }
            CardError::TooManyWaiting => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", None),
            CardError::InvalidBuckets => (StatusCode::BAD_REQUEST, "invalid_buckets", Some("buckets")),
            CardError::InvalidFrom => (StatusCode::BAD_REQUEST, "invalid_from", Some("from")),
            CardError::InvalidStart => (StatusCode::BAD_REQUEST, "invalid_from", Some("from")),
            CardError::InvalidLastEventId => (StatusCode::BAD_REQUEST, "invalid_last_event_id", Some("Last-Event-ID")),
            CardError::TooManyStreams => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", None),
            CardError::LogUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "log_unavailable", None),
            CardError::InvalidPlace(name) => (StatusCode::BAD_REQUEST, invalid_place(name), Some(name)),
            CardError::NotQuarantined => (StatusCode::NOT_FOUND, "record_not_found", None),
            CardError::NotFound => (StatusCode::NOT_FOUND, "card_not_found", None),
            CardError::AlreadyDeleted => (StatusCode::CONFLICT, "card_already_deleted", None),
            CardError::Exists => (StatusCode::PRECONDITION_FAILED, "precondition_failed", None),
            CardError::KeyReused => {
                (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", Some("Idempotency-Key"))
            }
            CardError::Store(error) => {
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

fn invalid_place(name: &str) -> &'static str {
    if name == "partition" { "invalid_partition" } else { "invalid_offset" }
}

/// One error of each code, for the OpenAPI document. A test holds the list complete.
pub(crate) fn examples() -> Vec<ApiError> {
    let errors = vec![
        CardError::MissingCountry,
        CardError::InvalidCountry(InvalidCountryCode::UnitedKingdom),
        CardError::MissingAccountId,
        CardError::InvalidAccountId(InvalidAccountId),
        CardError::MissingId,
        CardError::InvalidId,
        CardError::MissingNumber,
        CardError::InvalidAfter,
        CardError::AccountNotFound,
        CardError::AccountDeleted,
        CardError::AccountInactive,
        CardError::CatchingUp,
        CardError::InvalidAccountVersion,
        CardError::TooManyWaiting,
        CardError::InvalidBuckets,
        CardError::InvalidFrom,
        CardError::InvalidStart,
        CardError::InvalidLastEventId,
        CardError::TooManyStreams,
        CardError::LogUnavailable,
        CardError::InvalidPlace("partition"),
        CardError::InvalidPlace("offset"),
        CardError::NotQuarantined,
        CardError::NotFound,
        CardError::AlreadyDeleted,
        CardError::Exists,
        CardError::KeyReused,
        CardError::Store(StoreError::Overloaded),
        CardError::Store(StoreError::Unavailable(String::new())),
        CardError::Store(StoreError::Stopping),
    ];
    let selection = ApiError::invalid("buckets", "invalid_selection", "buckets must be a number from 1 to 65536");
    errors.into_iter().map(ApiError::from).chain([selection]).collect()
}

impl IntoResponse for CardError {
    fn into_response(self) -> Response {
        ApiError::from(self).into_response()
    }
}
