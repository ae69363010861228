//! `GET /card/history?id=`: what happened to a card, newest first.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http_server::{Content, Operation, QueryParams};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::card::CardChange;
use crate::error::CardError;
use crate::http::response::{CardQuery, CardService, STORE_READ};

#[derive(Serialize, ToSchema)]
#[schema(as = CardHistory)]
pub(crate) struct History {
    changes: Vec<CardChange>,
}

pub(crate) async fn get_history(
    State(service): State<Arc<CardService>>,
    QueryParams(query): QueryParams<CardQuery>,
) -> Result<Json<History>, CardError> {
    Ok(Json(History { changes: service.store.history(query.id()?).await? }))
}

pub(crate) fn get_history_operation() -> Operation {
    let created = json!({ "type": "created", "at": "2026-11-30T10:30:00.123Z", "caller": null });
    let deleted =
        json!({ "type": "deleted", "at": "2026-11-30T11:30:00.123Z", "caller": null, "reason": "account_deleted" });
    Operation::new("get_card_history", "Cards", "Lists what happened to a card, newest first.")
        .query::<CardQuery>()
        .answer(200, "The changes.", Content::json::<History>(json!({ "changes": [deleted, created] })), &[])
        .errors(&["missing_id", "invalid_id", "card_not_found"])
        .errors(&STORE_READ)
}
