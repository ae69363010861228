//! The HTTP side: the router, a file for each endpoint, and how errors are answered.

mod create_account;
mod delete_account;
pub mod error;
mod get_account;
mod list_accounts;
mod request_trace;
mod response;
pub(crate) mod router;
mod update_account;
