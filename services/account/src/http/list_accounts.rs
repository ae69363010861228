//! `GET /accounts?limit=&after=&status=`: a page of accounts, newest first.

use std::sync::Arc;

use account_events::{AccountId, AccountStatus};
use axum::extract::State;
use axum::response::Response;
use http_server::{ApiError, Content, Operation, QueryParams, parse_limit};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::account::Account;
use crate::error::AccountError;
use crate::http::response::{STORE_READ, account_example};
use crate::store::{PageRequest, Store};

#[derive(Deserialize, IntoParams)]
pub(crate) struct ListQuery {
    /// The size of the page.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 200, default = 50)]
    limit: Option<String>,
    /// The `next` of the page before.
    #[param(value_type = AccountId, required = false)]
    after: Option<String>,
    /// Only accounts with this status.
    #[param(value_type = AccountStatus, required = false)]
    status: Option<String>,
}

pub(crate) async fn list_accounts(
    State(store): State<Arc<Store>>,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<Response, ApiError> {
    let limit = parse_limit(query.limit.as_deref())?;
    let after = query.after.map(|after| after.parse().map_err(|_| AccountError::InvalidAfter)).transpose()?;
    let status = query.status.map(|text| AccountStatus::parse(&text).ok_or(AccountError::InvalidStatus)).transpose()?;
    let page = store.page(PageRequest { limit: limit as usize, after, status }).await?;
    Ok(page.into_response("accounts", |account| account.id))
}

pub(crate) fn list_accounts_operation() -> Operation {
    Operation::new("list_accounts", "Accounts", "Lists accounts, newest first.")
        .query::<ListQuery>()
        .answer(200, "A page.", Content::page::<Account>("accounts", account_example()), &[])
        .errors(&["invalid_limit", "invalid_after", "invalid_status"])
        .errors(&STORE_READ)
}
