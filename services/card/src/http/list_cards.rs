//! `GET /cards?limit=&after=` and `GET /cards/by-account?account_id=&limit=&after=`: newest first.

use std::sync::Arc;

use account_events::AccountId;
use axum::Json;
use axum::extract::State;
use http_server::{ApiError, QueryParams, parse_limit};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::card::Card;
use crate::http::error::CardError;
use crate::http::response::{CardService, parse_id};
use crate::store::PageRequest;

#[derive(Deserialize)]
pub(crate) struct ListQuery {
    limit: Option<String>,
    after: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct AccountCardsQuery {
    account_id: Option<String>,
    limit: Option<String>,
    after: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct CardList {
    cards: Vec<Card>,
    total: u64,
    /// The last card of this page, where others follow it. Cards are never removed, so it stays good for ever.
    next: Option<Uuid>,
}

pub(crate) async fn list_cards(
    State(service): State<Arc<CardService>>,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<Json<CardList>, ApiError> {
    list(&service, query.limit, query.after, None).await
}

pub(crate) async fn list_cards_by_account(
    State(service): State<Arc<CardService>>,
    QueryParams(query): QueryParams<AccountCardsQuery>,
) -> Result<Json<CardList>, ApiError> {
    let account_id = query.account_id.filter(|id| !id.is_empty()).ok_or(CardError::MissingAccountId)?;
    let account_id = account_id.parse().map_err(CardError::InvalidAccountId)?;
    list(&service, query.limit, query.after, Some(account_id)).await
}

async fn list(
    service: &CardService,
    limit: Option<String>,
    after: Option<String>,
    account_id: Option<AccountId>,
) -> Result<Json<CardList>, ApiError> {
    let limit = parse_limit(limit.as_deref())?;
    let after = after.map(|after| parse_id(&after).ok_or(CardError::InvalidAfter)).transpose()?;
    let page = service.store.page(PageRequest { limit: limit as usize, after, account_id }).await?;
    let next = page.cards.last().filter(|_| page.more).map(|card| card.id);
    Ok(Json(CardList { cards: page.cards, total: page.total, next }))
}
