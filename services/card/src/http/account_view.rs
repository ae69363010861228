//! `GET /account-view?account_id=`: what this instance knows of an account.

use std::sync::Arc;

use account_events::{AccountId, AccountStatus, Version};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http_server::{Content, Operation, QueryParams};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::error::CardError;
use crate::http::list_cards::AccountQuery;
use crate::http::lookup::Lookup;
use crate::http::response::{ACCOUNT_ID, CardService};

#[derive(Serialize, ToSchema)]
struct ViewedAccount {
    account_id: AccountId,
    status: AccountStatus,
    /// The version of the latest event; null if the account's events have none.
    #[schema(required, value_type = Option<u32>)]
    version: Option<Version>,
    /// How long ago the view was known to be complete, in its worst partition.
    #[schema(required)]
    age_seconds: Option<f64>,
    /// The unread records of the worst partition.
    lag: u64,
}

pub(crate) async fn get_account_view(
    State(service): State<Arc<CardService>>,
    lookup: Lookup,
    QueryParams(query): QueryParams<AccountQuery>,
) -> Result<Response, CardError> {
    let account_id = query.account_id()?;
    let found = lookup.account(&service, account_id).await;
    let account = found.map(|state| {
        let (age_seconds, lag) = service.status.age_and_lag();
        Json(ViewedAccount { account_id, status: state.status, version: state.version, age_seconds, lag })
    });
    Ok(lookup.respond(account))
}

pub(crate) fn get_account_view_operation() -> Operation {
    let example = json!({ "account_id": ACCOUNT_ID, "status": "ACTIVE", "version": 1, "age_seconds": 0.2, "lag": 0 });
    Operation::new("get_account_view", "Accounts", "Returns what this instance knows of an account.")
        .query::<AccountQuery>()
        .request_headers(&["Prefer", "Account-Version"])
        .headers(&["Preference-Applied"])
        .answer(200, "The account.", Content::json::<ViewedAccount>(example), &[])
        .errors(&["missing_account_id", "invalid_account_id", "invalid_account_version"])
        .errors(&["account_not_found", "catching_up", "overloaded"])
}
