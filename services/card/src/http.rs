//! The HTTP interface: the router, a file for each endpoint, and the responses to errors.

mod account_view;
mod create_card;
mod delete_card;
mod digest;
mod error;
pub(crate) mod events;
mod get_card;
mod get_history;
mod list_cards;
mod lookup;
mod quarantine;
pub(crate) mod response;
pub(crate) mod router;
