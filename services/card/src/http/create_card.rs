//! `POST /card`: one look-up in the account view, one durable insert, and no other call (ARCHITECTURE.md C1). A request with an
//! idempotency key that the view refuses takes one more look-up: its answer may be stored.

use std::sync::Arc;

use account_events::AccountId;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use country_code::CountryCode;
use http_server::{CallerName, Content, Idempotency, JsonBody, KeyedRequest, Operation, with_replay_header};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::card::{Card, may_have_card};
use crate::error::CardError;
use crate::http::lookup::Lookup;
use crate::http::response::{ACCOUNT_ID, CardService, STORE_WRITE, card_content};
use crate::idempotency::Done;

#[derive(Deserialize, ToSchema)]
pub(crate) struct CreateCard {
    #[schema(value_type = CountryCode)]
    country: Option<String>,
    #[schema(value_type = AccountId)]
    account_id: Option<String>,
}

pub(crate) async fn create_card(
    State(service): State<Arc<CardService>>,
    lookup: Lookup,
    caller: CallerName,
    idempotency: Idempotency,
    JsonBody(request): JsonBody<CreateCard>,
) -> Result<Response, CardError> {
    let country = request.country.filter(|text| !text.trim().is_empty()).ok_or(CardError::MissingCountry)?;
    let country: CountryCode = country.parse()?;
    let account_id = request.account_id.filter(|text| !text.trim().is_empty()).ok_or(CardError::MissingAccountId)?;
    let account_id: AccountId = account_id.parse()?;
    let key = idempotency.of_fields(&[Some(country.as_str()), Some(&account_id.to_string())]);
    Ok(lookup.respond(create(&service, &lookup, country, account_id, caller, key).await.map(|(card, is_replay)| {
        let location = [(LOCATION, format!("/card?id={}", card.id))];
        with_replay_header((StatusCode::CREATED, location, Json(card)).into_response(), is_replay)
    })))
}

pub(crate) fn create_card_operation() -> Operation {
    Operation::new("create_card", "Cards", "Creates a card of an active account.")
        .idempotent()
        .request_headers(&["Prefer", "Account-Version"])
        .headers(&["Preference-Applied"])
        .body(Content::json::<CreateCard>(json!({ "country": "US", "account_id": ACCOUNT_ID })))
        .answer(201, "The card.", card_content(), &["Location"])
        .errors(&["missing_country", "invalid_country", "missing_account_id", "invalid_account_id"])
        .errors(&["invalid_account_version", "account_not_found", "account_deleted", "account_inactive", "catching_up"])
        .errors(&STORE_WRITE)
}

/// Creates the card. The key takes precedence over the view and over waiting. Where the view allows the card at once, the transaction
/// looks for the key. Returns the card, and whether an earlier request with the key created it.
async fn create(
    service: &CardService,
    lookup: &Lookup,
    country: CountryCode,
    account_id: AccountId,
    caller: CallerName,
    key: Option<Arc<KeyedRequest>>,
) -> Result<(Card, bool), CardError> {
    let is_allowed = lookup.known(service, account_id).is_some_and(|state| may_have_card(state).is_ok());
    let mut replayed = None;
    if !is_allowed {
        replayed = service.store.replay(key.as_deref()).await?;
        if replayed.is_none() {
            lookup.account(service, account_id).await.and_then(may_have_card)?;
        }
    }
    let done = match replayed {
        Some(done) => done,
        None => service.store.create(country, account_id, caller, key).await?,
    };
    let Done { card: Some(card), is_replay } = done else { return Err(CardError::NotFound) };
    Ok((card, is_replay))
}
