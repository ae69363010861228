//! `DELETE /account?id=`: the account stays, with the status `DELETED`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use http_server::{Conditions, QueryParams};
use serde_json::{Value, json};

use crate::account::Change;
use crate::http::error::AccountError;
use crate::http::request_trace::RequestTrace;
use crate::http::response::AccountQuery;
use crate::store::Store;

pub(crate) async fn delete_account(
    State(store): State<Arc<Store>>,
    QueryParams(query): QueryParams<AccountQuery>,
    headers: HeaderMap,
    RequestTrace(trace): RequestTrace,
) -> Result<Json<Value>, AccountError> {
    store.change(query.id()?, Change::Delete, Conditions::from_headers(&headers), trace).await?;
    Ok(Json(json!({ "message": "Account deleted successfully" })))
}
