//! The HTTP interface: the router, a file for each endpoint, and the responses to errors.

mod asyncapi;
mod create_account;
mod delete_account;
mod digest;
mod erase;
mod error;
mod get_account;
mod get_history;
mod list_accounts;
mod precondition;
mod republish;
mod request_trace;
mod response;
pub(crate) mod router;
mod update_account;
