//! `DELETE /card?id=`: sets `deleted` and keeps the card.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use http_server::{EntityTags, QueryParams, if_none_match};
use serde_json::{Value, json};

use crate::error::CardError;
use crate::http::response::{CardQuery, CardService};

pub(crate) async fn delete_card(
    State(service): State<Arc<CardService>>,
    QueryParams(query): QueryParams<CardQuery>,
    headers: HeaderMap,
) -> Result<Json<Value>, CardError> {
    let id = query.id()?;
    // A card has no ETag, so only `*` matches. A request that fails without the condition fails in the same way with it.
    if if_none_match(&headers) == Some(EntityTags::Any) && !service.store.card(id).await?.deleted {
        return Err(CardError::Exists);
    }
    service.store.delete(id).await?;
    Ok(Json(json!({ "message": "Card deleted successfully" })))
}
