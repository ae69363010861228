//! The parts of requests and responses that several endpoints share.

use account_events::AccountId;
use axum::Json;
use axum::http::header::ETAG;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::account::Account;
use crate::http::error::AccountError;

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

/// Returns a response with `account`, and its version as the `ETag`.
pub(crate) fn with_etag(account: Account) -> Response {
    ([(ETAG, http_server::etag(u64::from(account.version)))], Json(account)).into_response()
}
