//! The routes of the account service.

use std::sync::Arc;

use axum::routing::{get, post};
use axum::{Extension, Router};
use http_server::Scans;

use crate::http::create_account::create_account;
use crate::http::delete_account::delete_account;
use crate::http::digest::{get_digest, get_position, list_states};
use crate::http::get_account::{get_account, get_account_by_number};
use crate::http::get_history::get_history;
use crate::http::list_accounts::list_accounts;
use crate::http::republish::republish;
use crate::http::update_account::update_account;
use crate::store::Store;

pub(crate) fn routes(store: Arc<Store>) -> Router {
    let account =
        get(get_account).post(create_account).put(update_account).patch(update_account).delete(delete_account);
    let scans = Router::new().route("/admin/digest", get(get_digest)).route("/admin/states", post(list_states));
    let scans = scans.layer(Extension(Scans::default()));
    Router::new()
        .route("/account", account)
        .route("/account/history", get(get_history))
        .route("/accounts", get(list_accounts))
        .route("/accounts/by-number", get(get_account_by_number))
        .route("/admin/position", get(get_position))
        .route("/admin/republish", post(republish))
        .merge(scans)
        .with_state(store)
}
