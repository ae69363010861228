//! Every path of the card service, and what its endpoints share.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use serde::Deserialize;
use uuid::Uuid;

use crate::account_view::AccountView;
use crate::create_card::create_card;
use crate::delete_card::delete_card;
use crate::error::CardError;
use crate::get_card::{get_card, get_card_by_number};
use crate::list_cards::{list_cards, list_cards_by_account};
use crate::store::Store;
use crate::view_status::ViewStatus;

/// What handlers work with.
#[derive(Clone)]
pub(crate) struct CardService {
    pub(crate) store: Store,
    pub(crate) view: AccountView,
    pub(crate) status: Arc<ViewStatus>,
}

pub(crate) fn routes(service: CardService) -> Router {
    Router::new()
        .route("/card", get(get_card).post(create_card).delete(delete_card))
        .route("/cards", get(list_cards))
        .route("/cards/by-number", get(get_card_by_number))
        .route("/cards/by-account", get(list_cards_by_account))
        .with_state(service)
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

/// A card's id as this service writes it, with hyphens.
pub(crate) fn parse_id(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|_| text.len() == uuid::fmt::Hyphenated::LENGTH)
}
