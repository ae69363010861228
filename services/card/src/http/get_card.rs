//! `GET /card?id=` and `GET /cards/by-number?card_number=`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http_server::QueryParams;
use serde::Deserialize;

use crate::card::Card;
use crate::error::CardError;
use crate::http::response::{CardQuery, CardService};

pub(crate) async fn get_card(
    State(service): State<Arc<CardService>>,
    QueryParams(query): QueryParams<CardQuery>,
) -> Result<Json<Card>, CardError> {
    Ok(Json(service.store.card(query.id()?).await?))
}

#[derive(Deserialize)]
pub(crate) struct NumberQuery {
    card_number: Option<String>,
}

pub(crate) async fn get_card_by_number(
    State(service): State<Arc<CardService>>,
    QueryParams(query): QueryParams<NumberQuery>,
) -> Result<Json<Card>, CardError> {
    let number = query.card_number.filter(|number| !number.is_empty()).ok_or(CardError::MissingNumber)?;
    Ok(Json(service.store.card_by_number(&number).await?))
}
