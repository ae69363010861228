//! `POST /admin/erase?id=`: replaces the name of a deleted account, for `tandem erase` (docs/operations/erase.md).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http_server::{CallerName, Content, Operation, QueryParams, ScanPermit};
use serde_json::json;

use crate::error::AccountError;
use crate::http::response::{ADMIN, AccountQuery, STORE_WRITE, event_version};
use crate::store::Store;

const MESSAGE: &str = "Account erased successfully";

pub(crate) async fn erase(
    State(store): State<Arc<Store>>,
    QueryParams(query): QueryParams<AccountQuery>,
    caller: CallerName,
    _permit: ScanPermit,
) -> Result<Response, AccountError> {
    let account = store.erase(query.id()?, caller).await?;
    Ok((event_version(&account), Json(json!({ "message": MESSAGE }))).into_response())
}

pub(crate) fn erase_operation() -> Operation {
    Operation::new("erase", ADMIN, "Replaces the name of a deleted account by `erased`, in stored answers, too.")
        .description("Repeating it does no harm, and is answered in the same way.")
        .query::<AccountQuery>()
        .answer(200, "The name is erased.", Content::message(MESSAGE), &["Account-Version"])
        .errors(&["missing_id", "invalid_id", "account_not_found", "account_not_deleted"])
        .errors(&STORE_WRITE)
}
