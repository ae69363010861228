//! What several handlers share: their state, `?id=`, and how an id is parsed.

use std::sync::Arc;

use event_log::EventLog;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::accounts::status::ViewStatus;
use crate::accounts::view::AccountView;
use crate::accounts::waiters::Waiters;
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

/// `?id=`
#[derive(Deserialize)]
pub(crate) struct CardQuery {
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
