//! `GET /cards?limit=&after=` and `GET /cards/by-account?account_id=&limit=&after=`: a page of cards, newest first.

use std::sync::Arc;

use account_events::AccountId;
use axum::extract::State;
use axum::response::Response;
use http_server::{ApiError, Content, Operation, QueryParams, parse_limit};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::card::Card;
use crate::error::CardError;
use crate::http::response::{CardService, STORE_READ, card_example, parse_id};
use crate::store::PageRequest;

#[derive(Deserialize, IntoParams)]
pub(crate) struct ListQuery {
    /// The size of the page.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 200, default = 50)]
    pub(crate) limit: Option<String>,
    /// The `next` of the page before.
    #[param(value_type = Uuid, required = false)]
    pub(crate) after: Option<String>,
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct AccountQuery {
    /// The account.
    #[param(value_type = AccountId, example = "550e8400-e29b-41d4-a716-446655440000")]
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

pub(crate) fn list_cards_operation() -> Operation {
    Operation::new("list_cards", "Cards", "Lists cards, newest first.")
        .query::<ListQuery>()
        .answer(200, "A page.", Content::page::<Card>("cards", card_example()), &[])
        .errors(&["invalid_limit", "invalid_after"])
        .errors(&STORE_READ)
}

pub(crate) fn list_cards_by_account_operation() -> Operation {
    Operation::new("list_cards_by_account", "Cards", "Lists the cards of an account, newest first.")
        .query::<AccountQuery>()
        .query::<ListQuery>()
        .answer(200, "A page.", Content::page::<Card>("cards", card_example()), &[])
        .errors(&["missing_account_id", "invalid_account_id", "invalid_limit", "invalid_after"])
        .errors(&STORE_READ)
}
