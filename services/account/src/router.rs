//! Every path of the account service, and what its endpoints share.

use account_events::AccountId;
use axum::http::header::ETAG;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;

use crate::account::Account;
use crate::create_account::create_account;
use crate::delete_account::delete_account;
use crate::error::AccountError;
use crate::get_account::{get_account, get_account_by_number};
use crate::list_accounts::list_accounts;
use crate::store::Store;
use crate::update_account::update_account;

pub(crate) fn routes(store: Store) -> Router {
    let account =
        get(get_account).post(create_account).put(update_account).patch(update_account).delete(delete_account);
    Router::new()
        .route("/account", account)
        .route("/accounts", get(list_accounts))
        .route("/accounts/by-number", get(get_account_by_number))
        .with_state(store)
}

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

/// An account as a response, with its version as its ETag.
pub(crate) fn with_etag(account: Account) -> Response {
    ([(ETAG, http_server::etag(u64::from(account.version)))], Json(account)).into_response()
}
