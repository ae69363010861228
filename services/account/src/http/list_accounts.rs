//! `GET /accounts?limit=&after=&status=`: a page of accounts, newest first.

use std::sync::Arc;

use account_events::AccountStatus;
use axum::extract::State;
use axum::response::Response;
use http_server::{ApiError, QueryParams, parse_limit};
use serde::Deserialize;

use crate::error::AccountError;
use crate::store::{PageRequest, Store};

#[derive(Deserialize)]
pub(crate) struct ListQuery {
    limit: Option<String>,
    after: Option<String>,
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
