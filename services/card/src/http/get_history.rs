//! `GET /card/history?id=`: what happened to a card, newest first.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http_server::QueryParams;
use serde::Serialize;

use crate::card::CardChange;
use crate::error::CardError;
use crate::http::response::{CardQuery, CardService};

#[derive(Serialize)]
pub(crate) struct History {
    changes: Vec<CardChange>,
}

pub(crate) async fn get_history(
    State(service): State<Arc<CardService>>,
    QueryParams(query): QueryParams<CardQuery>,
) -> Result<Json<History>, CardError> {
    Ok(Json(History { changes: service.store.history(query.id()?).await? }))
}
