//! `DELETE /account?id=`: sets the status `DELETED` and keeps the account.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http_server::{CallerName, Content, Idempotency, Operation, QueryParams, with_replay_header};
use serde_json::json;

use crate::account::{Change, Precondition};
use crate::error::AccountError;
use crate::http::request_trace::RequestTrace;
use crate::http::response::{AccountQuery, CHANGE_ERRORS, STORE_WRITE, event_version};
use crate::store::Store;

const MESSAGE: &str = "Account deleted successfully";

pub(crate) async fn delete_account(
    State(store): State<Arc<Store>>,
    QueryParams(query): QueryParams<AccountQuery>,
    precondition: Precondition,
    RequestTrace(trace): RequestTrace,
    caller: CallerName,
    idempotency: Idempotency,
) -> Result<Response, AccountError> {
    let key = idempotency.of_fields(&[]);
    let done = store.change(query.id()?, Change::Delete, precondition, trace, caller, key).await?;
    let message = Json(json!({ "message": MESSAGE }));
    Ok(with_replay_header((event_version(&done.account), message).into_response(), done.is_replay))
}

pub(crate) fn delete_account_operation() -> Operation {
    Operation::new("delete_account", "Accounts", "Sets the status DELETED, which is final.")
        .query::<AccountQuery>()
        .idempotent()
        .request_headers(&["If-Match", "If-None-Match", "traceparent"])
        .answer(200, "The account is deleted.", Content::message(MESSAGE), &["Account-Version"])
        .errors(&["account_already_deleted"])
        .errors(&CHANGE_ERRORS)
        .errors(&STORE_WRITE)
}
