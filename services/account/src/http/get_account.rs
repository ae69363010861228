//! `GET /account?id=` and `GET /accounts/by-number?account_number=`

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http_server::{Operation, QueryParams};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::error::AccountError;
use crate::http::response::{AccountQuery, STORE_READ, account_content, with_etag};
use crate::store::Store;

pub(crate) async fn get_account(
    State(store): State<Arc<Store>>,
    QueryParams(query): QueryParams<AccountQuery>,
) -> Result<Response, AccountError> {
    Ok(with_etag(store.account(query.id()?).await?))
}

pub(crate) fn get_account_operation() -> Operation {
    Operation::new("get_account", "Accounts", "Returns an account.")
        .query::<AccountQuery>()
        .request_headers(&["If-None-Match"])
        .answer(200, "The account.", account_content(), &["ETag", "Account-Version"])
        .errors(&["missing_id", "invalid_id", "account_not_found"])
        .errors(&STORE_READ)
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct NumberQuery {
    /// The number of the account.
    #[param(value_type = String, example = "ACC-12345678")]
    account_number: Option<String>,
}

pub(crate) async fn get_account_by_number(
    State(store): State<Arc<Store>>,
    QueryParams(query): QueryParams<NumberQuery>,
) -> Result<Response, AccountError> {
    let number = query.account_number.filter(|number| !number.is_empty()).ok_or(AccountError::MissingNumber)?;
    Ok(with_etag(store.account_by_number(&number).await?))
}

pub(crate) fn get_account_by_number_operation() -> Operation {
    Operation::new("get_account_by_number", "Accounts", "Returns the account with a number.")
        .query::<NumberQuery>()
        .request_headers(&["If-None-Match"])
        .answer(200, "The account.", account_content(), &["ETag", "Account-Version"])
        .errors(&["missing_account_number", "account_not_found"])
        .errors(&STORE_READ)
}
