//! `GET /cards?limit=&after=` and `GET /cards/by-account?account_id=&limit=&after=`: a page of cards, newest first.

use std::sync::Arc;

use account_events::AccountId;
use axum::extract::State;
use axum::response::Response;
use http_server::{ApiError, QueryParams, parse_limit};
use serde::Deserialize;

use crate::error::CardError;
use crate::http::response::{CardService, parse_id};
use crate::store::PageRequest;

#[derive(Deserialize)]
pub(crate) struct ListQuery {
    pub(crate) limit: Option<String>,
    pub(crate) after: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct AccountQuery {
    account_id: Option<String>,
}

impl AccountQuery {
    pub(crate) fn account_id(self) -> Result<AccountId, CardError> {
        let account_id = self.account_id.filter(|id| !id.is_empty()).ok_or(CardError::MissingAccountId)?;
        Ok(account_id.parse()?)
    }
}

pub(crate) async fn list_cards(
    State(service): State<Arc<CardService>>,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<Response, ApiError> {
    list(&service, query, None).await
}

pub(crate) async fn list_cards_by_account(
    State(service): State<Arc<CardService>>,
    QueryParams(account): QueryParams<AccountQuery>,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<Response, ApiError> {
    let account_id = account.account_id()?;
    list(&service, query, Some(account_id)).await
}

async fn list(service: &CardService, query: ListQuery, account_id: Option<AccountId>) -> Result<Response, ApiError> {
    let limit = parse_limit(query.limit.as_deref())?;
    let after = query.after.map(|after| parse_id(&after).ok_or(CardError::InvalidAfter)).transpose()?;
    let page = service.store.page(PageRequest { limit: limit as usize, after, account_id }).await?;
    Ok(page.into_response("cards", |card| card.id))
}
