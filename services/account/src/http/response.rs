//! The parts of requests and responses that several endpoints share.

use account_events::AccountId;
use axum::Json;
use axum::http::header::ETAG;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use http_server::ACCOUNT_VERSION;
use serde::Deserialize;

use crate::account::Account;
use crate::error::AccountError;

/// `?id=`
#[derive(Deserialize)]
pub(crate) struct AccountQuery {
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
