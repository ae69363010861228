//! `GET /account?id=` and `GET /accounts/by-number?account_number=`

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http_server::QueryParams;
use serde::Deserialize;

use crate::error::AccountError;
use crate::http::response::{AccountQuery, with_etag};
use crate::store::Store;

pub(crate) async fn get_account(
    State(store): State<Arc<Store>>,
    QueryParams(query): QueryParams<AccountQuery>,
) -> Result<Response, AccountError> {
    Ok(with_etag(store.account(query.id()?).await?))
}

#[derive(Deserialize)]
pub(crate) struct NumberQuery {
    account_number: Option<String>,
}

pub(crate) async fn get_account_by_number(
    State(store): State<Arc<Store>>,
    QueryParams(query): QueryParams<NumberQuery>,
) -> Result<Response, AccountError> {
    let number = query.account_number.filter(|number| !number.is_empty()).ok_or(AccountError::MissingNumber)?;
    Ok(with_etag(store.account_by_number(&number).await?))
}
