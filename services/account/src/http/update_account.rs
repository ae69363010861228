//! `PUT /account?id=` and `PATCH /account?id=`, which do the same: both change the fields that the body names.

use std::sync::Arc;

use account_events::AccountStatus;
use axum::extract::State;
use axum::response::Response;
use http_server::{JsonBody, QueryParams};
use serde::Deserialize;

use crate::account::{Change, Precondition};
use crate::http::error::AccountError;
use crate::http::request_trace::RequestTrace;
use crate::http::response::{AccountQuery, with_etag};
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
    JsonBody(request): JsonBody<UpdateAccount>,
) -> Result<Response, AccountError> {
    let id = query.id()?;
    let account = store.change(id, request.into_change()?, precondition, trace).await?;
    Ok(with_etag(account))
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
