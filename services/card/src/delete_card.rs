//! `DELETE /card?id=`: the card stays, with `deleted` true.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http_server::QueryParams;
use serde_json::{Value, json};

use crate::endpoint::{CardQuery, CardService};
use crate::error::CardError;

pub(crate) async fn delete_card(
    State(service): State<Arc<CardService>>,
    QueryParams(query): QueryParams<CardQuery>,
) -> Result<Json<Value>, CardError> {
    service.store.delete(query.id()?).await?;
    Ok(Json(json!({ "message": "Card deleted successfully" })))
}
