//! `POST /card`: one look-up in the account view, one durable insert, and no other call (ARCHITECTURE.md C1).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::Response;
use http_server::JsonBody;
use serde::Deserialize;

use crate::card::may_have_card;
use crate::error::CardError;
use crate::http::lookup::Lookup;
use crate::http::response::CardService;

#[derive(Deserialize)]
pub(crate) struct CreateCard {
    country: Option<String>,
    account_id: Option<String>,
}

pub(crate) async fn create_card(
    State(service): State<Arc<CardService>>,
    lookup: Lookup,
    JsonBody(request): JsonBody<CreateCard>,
) -> Result<Response, CardError> {
    let country = request.country.filter(|text| !text.trim().is_empty()).ok_or(CardError::MissingCountry)?.parse()?;
    let account_id =
        request.account_id.filter(|text| !text.trim().is_empty()).ok_or(CardError::MissingAccountId)?.parse()?;
    let created = match lookup.account(&service, account_id).await.and_then(may_have_card) {
        Ok(()) => service.store.create(country, account_id).await,
        Err(error) => Err(error),
    };
    Ok(lookup.respond(created.map(|card| {
        let location = [(LOCATION, format!("/card?id={}", card.id))];
        (StatusCode::CREATED, location, Json(card))
    })))
}
