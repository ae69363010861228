//! What several handlers share: their state, `?id=`, and how an id is parsed.

use std::sync::Arc;

use event_log::EventLog;
use http_server::Content;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::accounts::status::ViewStatus;
use crate::accounts::view::AccountView;
use crate::accounts::waiters::Waiters;
use crate::card::Card;
use crate::error::CardError;
use crate::http::events::EventStreams;
use crate::store::Store;

/// The state of all handlers, and of `/readyz`.
pub(crate) struct CardService {
    pub(crate) store: Store,
    pub(crate) view: AccountView,
    pub(crate) status: Arc<ViewStatus>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) events: EventStreams,
    /// Cancelled when the service stops.
    pub(crate) shutdown: CancellationToken,
}

/// The group of the operations for `tandem verify` in the OpenAPI document.
pub(crate) const ADMIN: &str = "Administration";

/// The id of an account in the examples of the OpenAPI document.
pub(crate) const ACCOUNT_ID: &str = "550e8400-e29b-41d4-a716-446655440000";

/// The errors of a request that reads the database.
pub(crate) const STORE_READ: [&str; 2] = ["storage_unavailable", "stopping"];

/// The errors of a request that writes.
pub(crate) const STORE_WRITE: [&str; 3] = ["storage_unavailable", "stopping", "overloaded"];

/// `?id=`
#[derive(Deserialize, IntoParams)]
pub(crate) struct CardQuery {
    /// The card.
    #[param(value_type = Uuid, example = "7c9e6679-7425-40de-944b-e07fc1f90ae7")]
    id: Option<String>,
}

impl CardQuery {
    pub(crate) fn id(&self) -> Result<Uuid, CardError> {
        let id = self.id.as_deref().filter(|id| !id.is_empty()).ok_or(CardError::MissingId)?;
        parse_id(id).ok_or(CardError::InvalidId)
    }
}

/// Parses a card id in the form that this service writes: with hyphens.
pub(crate) fn parse_id(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|_| text.len() == uuid::fmt::Hyphenated::LENGTH)
}

/// A card, for the OpenAPI document.
pub(crate) fn card_example() -> Value {
    json!({
        "id": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
        "card_number": "US-1A2B3C4D",
        "country": "US",
        "account_id": ACCOUNT_ID,
        "deleted": false,
        "creation_timestamp": "2026-11-30T10:30:00.123Z",
    })
}

/// The body of a response with a card.
pub(crate) fn card_content() -> Content {
    Content::json::<Card>(card_example())
}
