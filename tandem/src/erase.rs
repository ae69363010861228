//! `tandem erase`: has the account service erase the name of a deleted account (docs/operations/erase.md).

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Service, agent};
use crate::settings::EraseArgs;

/// Runs the command and exits.
pub(crate) fn run(arguments: &EraseArgs) -> ! {
    let status = match erase(arguments) {
        Ok(()) => {
            let id = arguments.account_id;
            println!("The name of account {id} is erased. docs/operations/erase.md says where copies of it remain.");
            0
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            1
        }
    };
    process::exit(status)
}

fn erase(EraseArgs { account_id, account_url, ca_file, token }: &EraseArgs) -> anyhow::Result<()> {
    let agent = agent([account_url.as_str()].into_iter(), ca_file.as_deref())?;
    let service = Service::new(agent, account_url, token.clone(), Duration::ZERO);
    service.post::<Value>(&format!("/admin/erase?id={account_id}"), &json!({})).map(drop)
}
