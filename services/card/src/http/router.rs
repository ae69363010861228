//! The endpoints of the card service.

use std::sync::Arc;

use access::Scope;
use http_server::{Api, Endpoints};

use crate::NAME;
use crate::http::account_view::{get_account_view, get_account_view_operation};
use crate::http::create_card::{create_card, create_card_operation};
use crate::http::delete_card::{delete_card, delete_card_operation};
use crate::http::digest::log::{read_log, read_log_operation};
use crate::http::digest::{
    get_digest, get_digest_operation, get_position, get_position_operation, list_states, list_states_operation,
};
use crate::http::error::examples;
use crate::http::events::{stream_events, stream_events_operation};
use crate::http::get_card::{get_card, get_card_by_number, get_card_by_number_operation, get_card_operation};
use crate::http::get_history::{get_history, get_history_operation};
use crate::http::list_cards::{
    list_cards, list_cards_by_account, list_cards_by_account_operation, list_cards_operation,
};
use crate::http::quarantine::{acknowledge, acknowledge_operation, list_quarantined, list_quarantined_operation};
use crate::http::response::CardService;

/// What the OpenAPI document says about the service.
pub(crate) const API: Api = Api {
    service: NAME,
    version: env!("CARGO_PKG_VERSION"),
    title: "Tandem card service",
    description: "Creates and deletes cards of accounts, which it knows from the events of the account service. \
                  `GET` also answers `HEAD`. An unknown path is 404 `not_found`.",
    errors: examples,
    links: &[],
};

pub(crate) fn endpoints() -> Endpoints<Arc<CardService>> {
    let scans = Endpoints::default()
        .get("/admin/digest", Scope::Admin, get_digest, get_digest_operation)
        .get("/admin/log", Scope::Admin, read_log, read_log_operation)
        .post("/admin/states", Scope::Admin, list_states, list_states_operation)
        .with_scans();
    Endpoints::default()
        .get("/card", Scope::CardsRead, get_card, get_card_operation)
        .post("/card", Scope::CardsWrite, create_card, create_card_operation)
        .delete("/card", Scope::CardsWrite, delete_card, delete_card_operation)
        .get("/card/history", Scope::CardsRead, get_history, get_history_operation)
        .get("/account-view", Scope::CardsRead, get_account_view, get_account_view_operation)
        .get("/cards", Scope::CardsRead, list_cards, list_cards_operation)
        .get("/cards/by-number", Scope::CardsRead, get_card_by_number, get_card_by_number_operation)
        .get("/cards/by-account", Scope::CardsRead, list_cards_by_account, list_cards_by_account_operation)
        .get("/events", Scope::EventsRead, stream_events, stream_events_operation)
        .get("/quarantine", Scope::Admin, list_quarantined, list_quarantined_operation)
        .delete("/quarantine", Scope::Admin, acknowledge, acknowledge_operation)
        .get("/admin/position", Scope::Admin, get_position, get_position_operation)
        .merge(scans)
}
