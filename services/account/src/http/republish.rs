//! `POST /admin/republish`: publishes the states of the named accounts again, for `tandem verify --repair`
//! (docs/decisions/0016).

use std::sync::Arc;

use account_events::MAX_VERSION;
use account_events::digest::{MAX_REPUBLISHED, Republications};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http_server::{ApiError, CallerName, Content, JsonBody, Operation};
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;
use utoipa::ToSchema;

use crate::error::AccountError;
use crate::http::request_trace::RequestTrace;
use crate::http::response::{ADMIN, STORE_WRITE};
use crate::store::Store;

#[derive(Serialize, ToSchema)]
struct Republished {
    /// Accounts that do not exist are not counted.
    republished: usize,
}

pub(crate) async fn republish(
    State(store): State<Arc<Store>>,
    RequestTrace(trace): RequestTrace,
    caller: CallerName,
    JsonBody(body): JsonBody<Republications>,
) -> Result<Response, ApiError> {
    let is_valid = |above: Option<_>| above.is_none_or(|above| above < MAX_VERSION);
    if body.accounts.len() > MAX_REPUBLISHED || !body.accounts.iter().all(|account| is_valid(account.above)) {
        let text = format!("accounts must be at most {MAX_REPUBLISHED}, each above a version below {MAX_VERSION}");
        return Err(ApiError::invalid("accounts", "invalid_accounts", text));
    }
    // Submitted together, so that few transactions do.
    let mut commands = JoinSet::new();
    for republication in body.accounts {
        let (store, caller) = (Arc::clone(&store), caller.clone());
        commands.spawn(async move { store.republish(republication, trace, caller).await });
    }
    let mut republished = 0;
    for outcome in commands.join_all().await {
        match outcome {
            Ok(_) => republished += 1,
            Err(AccountError::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    tracing::info!(republished, "published the states of accounts again on request");
    Ok(Json(Republished { republished }).into_response())
}

pub(crate) fn republish_operation() -> Operation {
    let body = json!({ "accounts": [{ "id": "550e8400-e29b-41d4-a716-446655440000", "above": 3, "delete": false }] });
    Operation::new("republish", ADMIN, "Publishes the states of up to 500 accounts again.")
        .request_headers(&["traceparent"])
        .body(Content::json::<Republications>(body))
        .answer(
            200,
            "The accounts are published again.",
            Content::json::<Republished>(json!({ "republished": 1 })),
            &[],
        )
        .errors(&["invalid_accounts", "missing_field"])
        .errors(&STORE_WRITE)
}
