//! `POST /card`: one look-up in the account view, one durable insert, and no other call (ARCHITECTURE.md C1).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use http_server::JsonBody;
use serde::Deserialize;

use crate::card::may_have_card;
use crate::error::CardError;
use crate::http::response::CardService;

#[derive(Deserialize)]
pub(crate) struct CreateCard {
    country: Option<String>,
    account_id: Option<String>,
}

pub(crate) async fn create_card(
    State(service): State<Arc<CardService>>,
    JsonBody(request): JsonBody<CreateCard>,
) -> Result<Response, CardError> {
    let country = request.country.filter(|text| !text.trim().is_empty()).ok_or(CardError::MissingCountry)?.parse()?;
    let account_id =
        request.account_id.filter(|text| !text.trim().is_empty()).ok_or(CardError::MissingAccountId)?.parse()?;
    // This check precedes the look-up: an account whose event has not been read yet must not be "not found" (C3).
    if service.status.unready().is_some() {
        return Err(CardError::CatchingUp);
    }
    may_have_card(service.view.get(account_id))?;
    let card = service.store.create(country, account_id).await?;
    let location = [(LOCATION, format!("/card?id={}", card.id))];
    Ok((StatusCode::CREATED, location, Json(card)).into_response())
}
