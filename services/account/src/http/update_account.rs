//! `PUT /account?id=` and `PATCH /account?id=`, which do the same: both change the fields that the body names.

use std::sync::Arc;

use account_events::AccountStatus;
use axum::extract::State;
use axum::response::Response;
use http_server::{Idempotency, JsonBody, QueryParams, with_replay_header};
use serde::Deserialize;

use crate::account::{Change, Precondition};
use crate::error::AccountError;
use crate::http::request_trace::RequestTrace;
use crate::http::response::{AccountQuery, with_etag};
use crate::idempotency::Done;
use crate::store::Store;

#[derive(Deserialize)]
pub(crate) struct UpdateAccount {
    beholder_name: Option<String>,
    country_code: Option<String>,
    status: Option<String>,
}

pub(crate) async fn update_account(
    State(store): State<Arc<Store>>,
    QueryParams(query): QueryParams<AccountQuery>,
    precondition: Precondition,
    RequestTrace(trace): RequestTrace,
    idempotency: Idempotency,
    JsonBody(request): JsonBody<UpdateAccount>,
) -> Result<Response, AccountError> {
    let id = query.id()?;
    let change = request.into_change()?;
    let key = idempotency.of_fields(&change.fields());
    let Done { account, is_replay } = store.change(id, change, precondition, trace, key).await?;
    Ok(with_replay_header(with_etag(account), is_replay))
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
