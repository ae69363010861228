//! `PUT /account?id=` and `PATCH /account?id=`, which do the same: both change the fields that the body names.

use std::sync::Arc;

use account_events::AccountStatus;
use axum::extract::State;
use axum::response::Response;
use country_code::CountryCode;
use http_server::{CallerName, Content, Idempotency, JsonBody, Operation, QueryParams, with_replay_header};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::account::{BeholderName, Change, Precondition};
use crate::error::AccountError;
use crate::http::request_trace::RequestTrace;
use crate::http::response::{AccountQuery, CHANGE_ERRORS, STORE_WRITE, account_content, with_etag};
use crate::idempotency::Done;
use crate::store::Store;

/// At least one of the fields.
#[derive(Deserialize, ToSchema)]
pub(crate) struct UpdateAccount {
    #[schema(value_type = Option<BeholderName>, nullable = false)]
    beholder_name: Option<String>,
    #[schema(value_type = Option<CountryCode>, nullable = false)]
    country_code: Option<String>,
    #[schema(value_type = Option<AccountStatus>, nullable = false)]
    status: Option<String>,
}

pub(crate) async fn update_account(
    State(store): State<Arc<Store>>,
    QueryParams(query): QueryParams<AccountQuery>,
    precondition: Precondition,
    RequestTrace(trace): RequestTrace,
    caller: CallerName,
    idempotency: Idempotency,
    JsonBody(request): JsonBody<UpdateAccount>,
) -> Result<Response, AccountError> {
    let id = query.id()?;
    let change = request.into_change()?;
    let key = idempotency.of_fields(&change.fields());
    let Done { account, is_replay } = store.change(id, change, precondition, trace, caller, key).await?;
    Ok(with_replay_header(with_etag(account), is_replay))
}

/// `PUT` and `PATCH` do the same, so they differ in their names alone.
fn operation(id: &'static str) -> Operation {
    Operation::new(id, "Accounts", "Changes the fields that the body names.")
        .description("`PUT` and `PATCH` do the same. An update to what is there already keeps the version.")
        .query::<AccountQuery>()
        .idempotent()
        .request_headers(&["If-Match", "If-None-Match", "traceparent"])
        .body(Content::json::<UpdateAccount>(json!({ "status": "BLOCKED" })))
        .answer(200, "The account.", account_content(), &["ETag", "Account-Version"])
        .errors(&[
            "nothing_to_update",
            "invalid_beholder_name",
            "invalid_country_code",
            "invalid_status",
            "account_deleted",
        ])
        .errors(&CHANGE_ERRORS)
        .errors(&STORE_WRITE)
}

pub(crate) fn put_account_operation() -> Operation {
    operation("put_account")
}

pub(crate) fn patch_account_operation() -> Operation {
    operation("patch_account")
}

impl UpdateAccount {
    fn into_change(self) -> Result<Change, AccountError> {
        if self.beholder_name.is_none() && self.country_code.is_none() && self.status.is_none() {
            return Err(AccountError::NothingToUpdate);
        }
        let status = self.status.map(|text| AccountStatus::parse(&text).ok_or(AccountError::InvalidStatus));
        Ok(Change::Update {
            beholder_name: self.beholder_name.map(|name| name.parse()).transpose()?,
            country_code: self.country_code.map(|code| code.parse()).transpose()?,
            status: status.transpose()?,
        })
    }
}
