//! The account view, for `tandem verify` (docs/decisions/0016): `GET /admin/digest?buckets=`, `GET /admin/position`, and
//! `POST /admin/states`, which lists the states of the accounts or buckets that the body names. `GET /admin/log` is in [`log`].

pub(crate) mod log;

use std::ops::ControlFlow;
use std::sync::Arc;

use account_events::AccountId;
use account_events::digest::{Digest, Selection, StateLine, parse_buckets};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use event_log::Positions;
use http_server::{ApiError, Content, JsonBody, LineSender, Operation, QueryParams, ScanPermit, lines};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::spawn_blocking;
use utoipa::{IntoParams, ToSchema};

use crate::accounts::view::{AccountState, AccountView};
use crate::error::CardError;
use crate::http::response::{ACCOUNT_ID, ADMIN, CardService};

#[derive(Deserialize, IntoParams)]
pub(crate) struct DigestQuery {
    /// The number of buckets.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 65_536, default = 65_536)]
    buckets: Option<String>,
}

/// The next offset of each partition before the view was read: the view has every record before them.
#[derive(Serialize, ToSchema)]
struct ViewPosition {
    #[schema(value_type = HashMap<String, u64>)]
    positions: Positions,
}

#[derive(Serialize, ToSchema)]
struct ViewDigest {
    #[serde(flatten)]
    position: ViewPosition,
    /// The number of accounts and the sum of their hashes, for each bucket. A sum has up to 64 bits.
    #[schema(value_type = Vec<Vec<usize>>)]
    buckets: Digest,
}

impl CardService {
    /// 503 until the view is complete: a rebuild counts records as read that the view does not show yet.
    fn view_position(&self) -> Result<ViewPosition, CardError> {
        if self.status.is_catching_up() {
            return Err(CardError::CatchingUp);
        }
        Ok(ViewPosition { positions: self.status.positions() })
    }
}

pub(crate) async fn get_position(State(service): State<Arc<CardService>>) -> Result<Response, CardError> {
    Ok(Json(service.view_position()?).into_response())
}

pub(crate) async fn get_digest(
    State(service): State<Arc<CardService>>,
    QueryParams(query): QueryParams<DigestQuery>,
    _permit: ScanPermit,
) -> Result<Response, ApiError> {
    let buckets = parse_buckets(query.buckets.as_deref()).ok_or(CardError::InvalidBuckets)?;
    let position = service.view_position()?;
    let digesting = spawn_blocking(move || {
        let mut digest = Digest::new(buckets);
        let _all = service.view.try_for_each(|id, state| {
            digest.add(line(id, state));
            ControlFlow::Continue(())
        });
        digest
    });
    let buckets = digesting.await.map_err(|_panic| ApiError::of_status(StatusCode::INTERNAL_SERVER_ERROR))?;
    Ok(Json(ViewDigest { position, buckets }).into_response())
}

pub(crate) async fn list_states(
    State(service): State<Arc<CardService>>,
    permit: ScanPermit,
    JsonBody(selection): JsonBody<Selection>,
) -> Result<Response, ApiError> {
    if let Some((field, text)) = selection.error() {
        return Err(ApiError::invalid(field, "invalid_selection", text));
    }
    let position = service.view_position()?;
    let (sender, response) = lines(permit);
    spawn_blocking(move || send_states(&service.view, &selection, &position, sender));
    Ok(response)
}

fn send_states(view: &AccountView, selection: &Selection, position: &ViewPosition, mut sender: LineSender) {
    if selection.accounts.is_empty() {
        let is_selected = selection.filter();
        let sent = view.try_for_each(|id, state| {
            if is_selected(id) {
                sender.push(&line(id, state));
            }
            if sender.blocking_send() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if sent.is_break() {
            return;
        }
    } else {
        let known = selection.accounts.iter().filter_map(|id| Some(line(*id, view.get(*id)?)));
        known.for_each(|line| sender.push(&line));
    }
    sender.blocking_finish(position);
}

fn line(id: AccountId, state: AccountState) -> StateLine {
    StateLine(id, state.version.unwrap_or(0), state.status)
}

pub(crate) fn get_position_operation() -> Operation {
    let example = json!({ "positions": { "0": 18, "1": 4 } });
    Operation::new("get_position", ADMIN, "Returns the position of the view: the next offset of each partition.")
        .answer(200, "The position.", Content::json::<ViewPosition>(example), &[])
        .errors(&["catching_up"])
}

pub(crate) fn get_digest_operation() -> Operation {
    let example = json!({ "positions": { "0": 18, "1": 4 }, "buckets": [[3, 17_482_907]] });
    Operation::new("get_digest", ADMIN, "Returns hashes of all accounts in the view, in buckets.")
        .query::<DigestQuery>()
        .answer(200, "The digest, and the position before it.", Content::json::<ViewDigest>(example), &[])
        .errors(&["invalid_buckets", "catching_up"])
}

pub(crate) fn list_states_operation() -> Operation {
    let lines = format!("[\"{ACCOUNT_ID}\",1,\"ACTIVE\"]\n{{\"positions\":{{\"0\":18,\"1\":4}}}}\n");
    Operation::new("list_states", ADMIN, "Lists the states of accounts or buckets, a JSON value a line.")
        .description("A response is complete if its last line is an object: the position of the view.")
        .body(Content::json::<Selection>(json!({ "accounts": [ACCOUNT_ID] })))
        .answer(200, "The states.", Content::text("application/x-ndjson", lines), &[])
        .errors(&["invalid_selection", "catching_up"])
}
