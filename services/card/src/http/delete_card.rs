//! `DELETE /card?id=`: sets `deleted` and keeps the card.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use http_server::{EntityTags, Idempotency, QueryParams, if_none_match, with_replay_header};
use serde_json::json;

use crate::error::CardError;
use crate::http::response::{CardQuery, CardService};

pub(crate) async fn delete_card(
    State(service): State<Arc<CardService>>,
    QueryParams(query): QueryParams<CardQuery>,
    headers: HeaderMap,
    idempotency: Idempotency,
) -> Result<Response, CardError> {
    let (id, key) = (query.id()?, idempotency.of_fields(&[]));
    // A card has no ETag, so only `*` matches. A request that fails without the condition fails in the same way with it.
    let is_excluded = if_none_match(&headers) == Some(EntityTags::Any) && !service.store.card(id).await?.deleted;
    let done = match is_excluded {
        false => service.store.delete(id, key).await?,
        // The key takes precedence over the condition.
        true => service.store.replay(key.as_deref()).await?.ok_or(CardError::Exists)?,
    };
    let message = Json(json!({ "message": "Card deleted successfully" }));
    Ok(with_replay_header(message.into_response(), done.is_replay))
}
