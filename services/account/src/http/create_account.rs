//! `POST /account`

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use country_code::CountryCode;
use http_server::{Idempotency, JsonBody, with_replay_header};
use serde::Deserialize;

use crate::account::BeholderName;
use crate::error::AccountError;
use crate::http::request_trace::RequestTrace;
use crate::http::response::with_etag;
use crate::idempotency::Done;
use crate::store::Store;

#[derive(Deserialize)]
pub(crate) struct CreateAccount {
    beholder_name: Option<String>,
    country_code: Option<String>,
}

pub(crate) async fn create_account(
    State(store): State<Arc<Store>>,
    RequestTrace(trace): RequestTrace,
    idempotency: Idempotency,
    JsonBody(request): JsonBody<CreateAccount>,
) -> Result<Response, AccountError> {
    let beholder_name = given(request.beholder_name, "beholder_name")?;
    let country_code = given(request.country_code, "country_code")?;
    let (beholder_name, country_code): (BeholderName, CountryCode) = (beholder_name.parse()?, country_code.parse()?);
    let key = idempotency.of_fields(&[Some(beholder_name.as_str()), Some(country_code.as_str())]);
    let Done { account, is_replay } = store.create(beholder_name, country_code, trace, key).await?;
    let location = [(LOCATION, format!("/account?id={}", account.id))];
    Ok(with_replay_header((StatusCode::CREATED, location, with_etag(account)).into_response(), is_replay))
}

/// Returns the value of a required field. A field that is null or holds nothing but spaces counts as missing.
fn given(value: Option<String>, field: &'static str) -> Result<String, AccountError> {
    value.filter(|text| !text.trim().is_empty()).ok_or(AccountError::MissingFields { field })
}
