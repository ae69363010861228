//! `DELETE /card?id=`: sets `deleted` and keeps the card.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use http_server::{
    CallerName, Content, EntityTags, Idempotency, Operation, QueryParams, if_none_match, with_replay_header,
};
use serde_json::json;

use crate::error::CardError;
use crate::http::response::{CardQuery, CardService, STORE_WRITE};

const MESSAGE: &str = "Card deleted successfully";

pub(crate) async fn delete_card(
    State(service): State<Arc<CardService>>,
    QueryParams(query): QueryParams<CardQuery>,
    headers: HeaderMap,
    caller: CallerName,
    idempotency: Idempotency,
) -> Result<Response, CardError> {
    let (id, key) = (query.id()?, idempotency.of_fields(&[]));
    // A card has no ETag, so only `*` matches. A request that fails without the condition fails in the same way with it.
    let is_excluded = if_none_match(&headers) == Some(EntityTags::Any) && !service.store.card(id).await?.deleted;
    let done = match is_excluded {
        false => service.store.delete(id, caller, key).await?,
        // The key takes precedence over the condition.
        true => service.store.replay(key.as_deref()).await?.ok_or(CardError::Exists)?,
    };
    let message = Json(json!({ "message": MESSAGE }));
    Ok(with_replay_header(message.into_response(), done.is_replay))
}

pub(crate) fn delete_card_operation() -> Operation {
    Operation::new("delete_card", "Cards", "Marks a card as deleted.")
        .query::<CardQuery>()
        .idempotent()
        .request_headers(&["If-None-Match"])
        .answer(200, "The card is deleted.", Content::message(MESSAGE), &[])
        .errors(&["missing_id", "invalid_id", "card_not_found", "card_already_deleted", "precondition_failed"])
        .errors(&STORE_WRITE)
}
