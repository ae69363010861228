//! `POST /account`

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use country_code::CountryCode;
use http_server::{CallerName, Content, Idempotency, JsonBody, Operation, with_replay_header};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::account::BeholderName;
use crate::error::AccountError;
use crate::http::request_trace::RequestTrace;
use crate::http::response::{STORE_WRITE, account_content, with_etag};
use crate::idempotency::Done;
use crate::store::Store;

#[derive(Deserialize, ToSchema)]
pub(crate) struct CreateAccount {
    #[schema(value_type = BeholderName)]
    beholder_name: Option<String>,
    #[schema(value_type = CountryCode)]
    country_code: Option<String>,
}

pub(crate) async fn create_account(
    State(store): State<Arc<Store>>,
    RequestTrace(trace): RequestTrace,
    caller: CallerName,
    idempotency: Idempotency,
    JsonBody(request): JsonBody<CreateAccount>,
) -> Result<Response, AccountError> {
    let beholder_name = given(request.beholder_name, "beholder_name")?;
    let country_code = given(request.country_code, "country_code")?;
    let (beholder_name, country_code): (BeholderName, CountryCode) = (beholder_name.parse()?, country_code.parse()?);
    let key = idempotency.of_fields(&[Some(beholder_name.as_str()), Some(country_code.as_str())]);
    let Done { account, is_replay } = store.create(beholder_name, country_code, trace, caller, key).await?;
    let location = [(LOCATION, format!("/account?id={}", account.id))];
    Ok(with_replay_header((StatusCode::CREATED, location, with_etag(account)).into_response(), is_replay))
}

pub(crate) fn create_account_operation() -> Operation {
    let body = Content::json::<CreateAccount>(json!({ "beholder_name": "John Doe", "country_code": "US" }));
    Operation::new("create_account", "Accounts", "Creates an account.")
        .idempotent()
        .request_headers(&["traceparent"])
        .body(body)
        .answer(201, "The account.", account_content(), &["Location", "ETag", "Account-Version"])
        .errors(&["missing_fields", "invalid_beholder_name", "invalid_country_code"])
        .errors(&STORE_WRITE)
}

/// Returns the value of a required field. A field that is null or holds nothing but spaces counts as missing.
fn given(value: Option<String>, field: &'static str) -> Result<String, AccountError> {
    value.filter(|text| !text.trim().is_empty()).ok_or(AccountError::MissingFields { field })
}
