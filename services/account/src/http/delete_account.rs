//! `DELETE /account?id=`: sets the status `DELETED` and keeps the account.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http_server::{Idempotency, QueryParams, with_replay_header};
use serde_json::json;

use crate::account::{Change, Precondition};
use crate::error::AccountError;
use crate::http::request_trace::RequestTrace;
use crate::http::response::{AccountQuery, event_version};
use crate::store::Store;

pub(crate) async fn delete_account(
    State(store): State<Arc<Store>>,
    QueryParams(query): QueryParams<AccountQuery>,
    precondition: Precondition,
    RequestTrace(trace): RequestTrace,
    idempotency: Idempotency,
) -> Result<Response, AccountError> {
    let key = idempotency.of_fields(&[]);
    let done = store.change(query.id()?, Change::Delete, precondition, trace, key).await?;
    let message = Json(json!({ "message": "Account deleted successfully" }));
    Ok(with_replay_header((event_version(&done.account), message).into_response(), done.is_replay))
}
