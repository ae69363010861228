//! The endpoints of the account service.

use std::sync::Arc;

use access::{Access, Scope};
use http_server::{Api, Endpoints};

use crate::NAME;
use crate::http::asyncapi::{ASYNCAPI_PATH, asyncapi_operation, get_asyncapi};
use crate::http::create_account::{create_account, create_account_operation};
use crate::http::delete_account::{delete_account, delete_account_operation};
use crate::http::digest::{
    get_digest, get_digest_operation, get_position, get_position_operation, list_states, list_states_operation,
};
use crate::http::erase::{erase, erase_operation};
use crate::http::error::examples;
use crate::http::get_account::{
    get_account, get_account_by_number, get_account_by_number_operation, get_account_operation,
};
use crate::http::get_history::{get_history, get_history_operation};
use crate::http::list_accounts::{list_accounts, list_accounts_operation};
use crate::http::republish::{republish, republish_operation};
use crate::http::update_account::{patch_account_operation, put_account_operation, update_account};
use crate::store::Store;

/// What the OpenAPI document says about the service.
pub(crate) const API: Api = Api {
    service: NAME,
    version: env!("CARGO_PKG_VERSION"),
    title: "Tandem account service",
    description: "Creates, changes and deletes accounts, and publishes an event for each creation and each change of status. \
                  `GET` also answers `HEAD`. An unknown path is 404 `not_found`.",
    errors: examples,
    links: &[("asyncapi", ASYNCAPI_PATH)],
};

pub(crate) fn endpoints() -> Endpoints<Arc<Store>> {
    let scans = Endpoints::default()
        .get("/admin/digest", Scope::Admin, get_digest, get_digest_operation)
        .post("/admin/erase", Scope::Admin, erase, erase_operation)
        .post("/admin/states", Scope::Admin, list_states, list_states_operation)
        .with_scans();
    Endpoints::default()
        .get("/account", Scope::AccountsRead, get_account, get_account_operation)
        .post("/account", Scope::AccountsWrite, create_account, create_account_operation)
        .put("/account", Scope::AccountsWrite, update_account, put_account_operation)
        .patch("/account", Scope::AccountsWrite, update_account, patch_account_operation)
        .delete("/account", Scope::AccountsWrite, delete_account, delete_account_operation)
        .get("/account/history", Scope::AccountsRead, get_history, get_history_operation)
        .get("/accounts", Scope::AccountsRead, list_accounts, list_accounts_operation)
        .get("/accounts/by-number", Scope::AccountsRead, get_account_by_number, get_account_by_number_operation)
        .get("/admin/position", Scope::Admin, get_position, get_position_operation)
        .post("/admin/republish", Scope::Admin, republish, republish_operation)
        .get(ASYNCAPI_PATH, Access::Open, get_asyncapi, asyncapi_operation)
        .merge(scans)
}
