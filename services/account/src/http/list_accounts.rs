//! `GET /accounts?limit=&after=&status=`: newest first.

use std::sync::Arc;

use account_events::{AccountId, AccountStatus};
use axum::Json;
use axum::extract::State;
use http_server::{ApiError, QueryParams, parse_limit};
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::http::error::AccountError;
use crate::store::{PageRequest, Store};

#[derive(Deserialize)]
pub(crate) struct ListQuery {
    limit: Option<String>,
    after: Option<String>,
    status: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct AccountList {
    accounts: Vec<Account>,
    total: u64,
    /// The last account of this page, where others follow it. Accounts are never removed, so it stays good for ever.
    next: Option<AccountId>,
}

pub(crate) async fn list_accounts(
    State(store): State<Arc<Store>>,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<Json<AccountList>, ApiError> {
    let limit = parse_limit(query.limit.as_deref())?;
    let after = query.after.map(|after| after.parse().map_err(|_| AccountError::InvalidAfter)).transpose()?;
    let status = query.status.map(|text| AccountStatus::parse(&text).ok_or(AccountError::InvalidStatus)).transpose()?;
    let page = store.page(PageRequest { limit: limit as usize, after, status }).await?;
    let next = page.accounts.last().filter(|_| page.more).map(|account| account.id);
    Ok(Json(AccountList { accounts: page.accounts, total: page.total, next }))
}
