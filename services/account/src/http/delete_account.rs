//! `DELETE /account?id=`: sets the status `DELETED` and keeps the account.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http_server::QueryParams;
use serde_json::json;

use crate::account::{Change, Precondition};
use crate::http::error::AccountError;
use crate::http::request_trace::RequestTrace;
use crate::http::response::{AccountQuery, event_version};
use crate::store::Store;

pub(crate) async fn delete_account(
    State(store): State<Arc<Store>>,
    QueryParams(query): QueryParams<AccountQuery>,
    precondition: Precondition,
    RequestTrace(trace): RequestTrace,
) -> Result<Response, AccountError> {
    let account = store.change(query.id()?, Change::Delete, precondition, trace).await?;
    let message = Json(json!({ "message": "Account deleted successfully" }));
    Ok((event_version(&account), message).into_response())
}
