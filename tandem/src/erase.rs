//! `tandem erase`: has the account service erase the name of a deleted account (docs/operations/erase.md).

use std::time::Duration;

use serde_json::{Value, json};

use crate::settings::EraseArgs;
use crate::verify::client::Service;

/// Runs the command and exits.
pub(crate) fn run(EraseArgs { account_id, account_url, token }: &EraseArgs) -> ! {
    let service = Service::new(account_url, token.clone(), Duration::ZERO);
    let status = match service.post::<Value>(&format!("/admin/erase?id={account_id}"), &json!({})) {
        Ok(_) => {
            println!(
                "The name of account {account_id} is erased. docs/operations/erase.md says where copies of it remain."
            );
            0
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            1
        }
    };
    process::exit(status)
}
