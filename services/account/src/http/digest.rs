//! The account table, for `tandem verify` (docs/decisions/0016): `GET /admin/digest?buckets=`, `GET /admin/position`, and
//! `POST /admin/states`, which lists the states of the accounts or buckets that the body names.

use std::sync::Arc;

use account_events::digest::{Digest, Selection, parse_buckets};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use group_commit::StoreError;
use http_server::{ApiError, Content, JsonBody, LineSender, Operation, QueryParams, ScanPermit, lines};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use crate::error::AccountError;
use crate::http::response::{ADMIN as TAG, STORE_READ};
use crate::store::Store;
use crate::store::states::OutboxPosition;

#[derive(Deserialize, IntoParams)]
pub(crate) struct DigestQuery {
    /// The number of buckets.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 65_536, default = 65_536)]
    buckets: Option<String>,
}

/// A digest and the outbox after the scan: no state in the digest is newer than the position.
#[derive(Serialize, ToSchema)]
struct TableDigest {
    #[serde(flatten)]
    outbox: OutboxPosition,
    /// The number of accounts and the sum of their hashes, for each bucket. A sum has up to 64 bits.
    #[schema(value_type = Vec<Vec<usize>>)]
    buckets: Digest,
}

pub(crate) async fn get_digest(
    State(store): State<Arc<Store>>,
    QueryParams(query): QueryParams<DigestQuery>,
    _permit: ScanPermit,
) -> Result<Response, AccountError> {
    let buckets = parse_buckets(query.buckets.as_deref()).ok_or(AccountError::InvalidBuckets)?;
    let mut digest = Digest::new(buckets);
    let mut after = Some(0);
    while let Some(sequence) = after {
        let (page, last) = store.states_after(sequence).await?;
        page.into_iter().for_each(|line| digest.add(line));
        after = last;
    }
    let outbox = store.outbox_position().await?;
    Ok(Json(TableDigest { outbox, buckets: digest }).into_response())
}

pub(crate) fn get_digest_operation() -> Operation {
    let example = json!({ "database_id": "0f6c4d1e", "position": 12, "published": 12, "buckets": [[3, 17_482_907]] });
    Operation::new("get_digest", TAG, "Returns hashes of all accounts, in buckets.")
        .query::<DigestQuery>()
        .answer(200, "The digest, and the outbox after the scan.", Content::json::<TableDigest>(example), &[])
        .errors(&["invalid_buckets"])
        .errors(&STORE_READ)
}

pub(crate) fn get_position_operation() -> Operation {
    let example = json!({ "database_id": "0f6c4d1e", "position": 12, "published": 12 });
    Operation::new("get_position", TAG, "Returns the position of the outbox.")
        .answer(200, "The position.", Content::json::<OutboxPosition>(example), &[])
        .errors(&STORE_READ)
}

pub(crate) fn list_states_operation() -> Operation {
    let lines = "[\"550e8400-e29b-41d4-a716-446655440000\",1,\"ACTIVE\"]\n\
                 {\"database_id\":\"0f6c4d1e\",\"position\":12,\"published\":12}\n";
    let body = Content::json::<Selection>(json!({ "accounts": ["550e8400-e29b-41d4-a716-446655440000"] }));
    Operation::new("list_states", TAG, "Lists the states of accounts or buckets, a JSON value a line.")
        .description("A response is complete if its last line is an object: the position of the outbox.")
        .body(body)
        .answer(200, "The states.", Content::text("application/x-ndjson", lines), &[])
        .errors(&["invalid_selection"])
}

pub(crate) async fn get_position(State(store): State<Arc<Store>>) -> Result<Response, AccountError> {
    Ok(Json(store.outbox_position().await?).into_response())
}

pub(crate) async fn list_states(
    State(store): State<Arc<Store>>,
    permit: ScanPermit,
    JsonBody(selection): JsonBody<Selection>,
) -> Result<Response, ApiError> {
    if let Some((field, text)) = selection.error() {
        return Err(ApiError::invalid(field, "invalid_selection", text));
    }
    let (sender, response) = lines(permit);
    tokio::spawn(async move {
        // The caller sees a response without its last line.
        if let Err(error) = send_states(&store, selection, sender).await {
            tracing::warn!(%error, "a list of accounts' states was cut short");
        }
    });
    Ok(response)
}

/// Sends the states, and as the last line the position of the outbox after they were read.
async fn send_states(store: &Store, selection: Selection, mut sender: LineSender) -> Result<(), StoreError> {
    if selection.accounts.is_empty() {
        let (is_selected, mut after) = (selection.filter(), Some(0));
        while let Some(sequence) = after {
            let (page, last) = store.states_after(sequence).await?;
            page.iter().filter(|line| is_selected(line.0)).for_each(|line| sender.push(line));
            if !sender.send().await {
                return Ok(());
            }
            after = last;
        }
    } else {
        store.states_of(selection.accounts).await?.iter().for_each(|line| sender.push(line));
    }
    sender.finish(&store.outbox_position().await?).await;
    Ok(())
}
