//! `GET /card?id=` and `GET /cards/by-number?card_number=`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http_server::{Operation, QueryParams};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::card::Card;
use crate::error::CardError;
use crate::http::response::{CardQuery, CardService, STORE_READ, card_content};

pub(crate) async fn get_card(
    State(service): State<Arc<CardService>>,
    QueryParams(query): QueryParams<CardQuery>,
) -> Result<Json<Card>, CardError> {
    Ok(Json(service.store.card(query.id()?).await?))
}

pub(crate) fn get_card_operation() -> Operation {
    Operation::new("get_card", "Cards", "Returns a card.")
        .query::<CardQuery>()
        .answer(200, "The card.", card_content(), &[])
        .errors(&["missing_id", "invalid_id", "card_not_found"])
        .errors(&STORE_READ)
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct NumberQuery {
    /// The number of the card.
    #[param(value_type = String, example = "US-1A2B3C4D")]
    card_number: Option<String>,
}

pub(crate) async fn get_card_by_number(
    State(service): State<Arc<CardService>>,
    QueryParams(query): QueryParams<NumberQuery>,
) -> Result<Json<Card>, CardError> {
    let number = query.card_number.filter(|number| !number.is_empty()).ok_or(CardError::MissingNumber)?;
    Ok(Json(service.store.card_by_number(&number).await?))
}

pub(crate) fn get_card_by_number_operation() -> Operation {
    Operation::new("get_card_by_number", "Cards", "Returns the card with a number.")
        .query::<NumberQuery>()
        .answer(200, "The card.", card_content(), &[])
        .errors(&["missing_card_number", "card_not_found"])
        .errors(&STORE_READ)
}
