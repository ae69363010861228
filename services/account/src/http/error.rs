//! The responses to errors: the statuses and codes of docs/api.md. `http_server` answers requests whose JSON, body or query cannot be
//! parsed.

use account_events::InvalidAccountId;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use country_code::InvalidCountryCode;
use group_commit::StoreError;
use http_server::ApiError;

use crate::beholder_name::InvalidBeholderName;
use crate::error::AccountError;

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
            AccountError::NotDeleted => (StatusCode::CONFLICT, "account_not_deleted", None),
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

/// One error of each code, for the OpenAPI document. A test holds the list complete.
pub(crate) fn examples() -> Vec<ApiError> {
    let errors = vec![
        AccountError::MissingFields { field: "beholder_name" },
        AccountError::EmptyName,
        AccountError::InvalidName(InvalidBeholderName::Invisible),
        AccountError::InvalidCountry(InvalidCountryCode::UnitedKingdom),
        AccountError::InvalidStatus,
        AccountError::NothingToUpdate,
        AccountError::MissingId,
        AccountError::InvalidId(InvalidAccountId),
        AccountError::MissingNumber,
        AccountError::InvalidAfter,
        AccountError::InvalidBuckets,
        AccountError::NotFound,
        AccountError::CannotUpdateDeleted,
        AccountError::AlreadyDeleted,
        AccountError::NotDeleted,
        AccountError::VersionMismatch { version: 2 },
        AccountError::VersionMatch { version: 2 },
        AccountError::KeyReused,
        AccountError::Superseded,
        AccountError::Store(StoreError::Overloaded),
        AccountError::Store(StoreError::Unavailable(String::new())),
        AccountError::Store(StoreError::Stopping),
    ];
    let of_handlers = [
        ApiError::invalid("buckets", "invalid_selection", "buckets must be a number from 1 to 65536"),
        ApiError::invalid("accounts", "invalid_accounts", "accounts must be at most 500"),
    ];
    errors.into_iter().map(ApiError::from).chain(of_handlers).collect()
}

impl IntoResponse for AccountError {
    fn into_response(self) -> Response {
        ApiError::from(self).into_response()
    }
}
