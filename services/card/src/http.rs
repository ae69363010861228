//! The HTTP side: the router, a file for each endpoint, and how errors are answered.

mod create_card;
mod delete_card;
pub mod error;
mod get_card;
mod list_cards;
pub(crate) mod response;
pub(crate) mod router;
