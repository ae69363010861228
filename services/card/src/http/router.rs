//! The routes of the card service.

use std::sync::Arc;

use axum::routing::{get, post};
use axum::{Extension, Router};
use http_server::Scans;

use crate::http::account_view::get_account_view;
use crate::http::create_card::create_card;
use crate::http::delete_card::delete_card;
use crate::http::digest::log::read_log;
use crate::http::digest::{get_digest, get_position, list_states};
use crate::http::events::stream_events;
use crate::http::get_card::{get_card, get_card_by_number};
use crate::http::get_history::get_history;
use crate::http::list_cards::{list_cards, list_cards_by_account};
use crate::http::quarantine::{acknowledge, list_quarantined};
use crate::http::response::CardService;

pub(crate) fn routes(service: Arc<CardService>) -> Router {
    let scans = Router::new().route("/admin/digest", get(get_digest)).route("/admin/states", post(list_states));
    let scans = scans.route("/admin/log", get(read_log)).layer(Extension(Scans::default()));
    Router::new()
        .route("/card", get(get_card).post(create_card).delete(delete_card))
        .route("/card/history", get(get_history))
        .route("/account-view", get(get_account_view))
        .route("/cards", get(list_cards))
        .route("/cards/by-number", get(get_card_by_number))
        .route("/cards/by-account", get(list_cards_by_account))
        .route("/events", get(stream_events))
        .route("/quarantine", get(list_quarantined).delete(acknowledge))
        .route("/admin/position", get(get_position))
        .merge(scans)
        .with_state(service)
}
