//! `DELETE /account?id=`: sets the status `DELETED` and keeps the account.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http_server::QueryParams;
use serde_json::{Value, json};

use crate::account::{Change, Precondition};
use crate::http::error::AccountError;
use crate::http::request_trace::RequestTrace;
use crate::http::response::AccountQuery;
use crate::store::Store;

pub(crate) async fn delete_account(
    State(store): State<Arc<Store>>,
    QueryParams(query): QueryParams<AccountQuery>,
    precondition: Precondition,
    RequestTrace(trace): RequestTrace,
) -> Result<Json<Value>, AccountError> {
    store.change(query.id()?, Change::Delete, precondition, trace).await?;
    Ok(Json(json!({ "message": "Account deleted successfully" })))
}
