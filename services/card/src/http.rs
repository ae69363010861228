//! The HTTP interface: the router, a file for each endpoint, and the responses to errors.

mod create_card;
mod delete_card;
mod digest;
mod error;
mod get_card;
mod list_cards;
pub(crate) mod response;
pub(crate) mod router;
