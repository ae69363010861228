//! The parts of requests and responses that several endpoints share.

use account_events::AccountId;
use axum::Json;
use axum::http::header::ETAG;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use http_server::{ACCOUNT_VERSION, Content};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use crate::account::Account;
use crate::error::AccountError;

/// The group of the operations for `tandem verify` in the OpenAPI document.
pub(crate) const ADMIN: &str = "Administration";

/// The errors of a request that reads the database.
pub(crate) const STORE_READ: [&str; 2] = ["storage_unavailable", "stopping"];

/// The errors of a request that writes.
pub(crate) const STORE_WRITE: [&str; 4] = ["storage_unavailable", "stopping", "overloaded", "database_superseded"];

/// The errors of every change of an account.
pub(crate) const CHANGE_ERRORS: [&str; 5] =
    ["missing_id", "invalid_id", "account_not_found", "version_mismatch", "precondition_failed"];

/// `?id=`
#[derive(Deserialize, IntoParams)]
pub(crate) struct AccountQuery {
    /// The account.
    #[param(value_type = AccountId, example = "550e8400-e29b-41d4-a716-446655440000")]
    id: Option<String>,
}

impl AccountQuery {
    pub(crate) fn id(&self) -> Result<AccountId, AccountError> {
        let id = self.id.as_deref().filter(|id| !id.is_empty()).ok_or(AccountError::MissingId)?;
        Ok(id.parse()?)
    }
}

/// Returns a response with `account`, its version as the `ETag`, and [the version of its event](event_version).
pub(crate) fn with_etag(account: Account) -> Response {
    let etag = [(ETAG, http_server::etag(u64::from(account.version)))];
    (etag, event_version(&account), Json(account)).into_response()
}

/// The header with the version of the account's latest event, for which a caller of the card service can wait.
pub(crate) fn event_version(account: &Account) -> [(HeaderName, HeaderValue); 1] {
    [(ACCOUNT_VERSION, account.event_version.into())]
}

/// An account, for the OpenAPI document.
pub(crate) fn account_example() -> Value {
    json!({
        "id": "550e8400-e29b-41d4-a716-446655440000",
        "account_number": "ACC-12345678",
        "beholder_name": "John Doe",
        "country_code": "US",
        "status": "ACTIVE",
        "version": 1,
        "created_at": "2026-11-30T10:30:00.123Z",
        "updated_at": "2026-11-30T10:30:00.123Z",
    })
}

/// The body of a response with an account.
pub(crate) fn account_content() -> Content {
    Content::json::<Account>(account_example())
}
