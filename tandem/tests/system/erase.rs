//! `tandem erase`, as an operator runs it.

use std::process::{Command, Output};

use serde_json::json;
use tempfile::TempDir;
use test_harness::{Http, Process, binary, database_url, output_of};

use crate::requests::{create_account, delete_account};

fn erase(accounts: &Http, id: &str) -> Output {
    let url = format!("http://{}", accounts.address());
    output_of(Command::new(binary("tandem")).args(["erase", id, "--account-url", &url]).env_clear())
}

#[test]
fn a_deleted_account_loses_its_name_and_others_are_refused() {
    let folder = TempDir::new().unwrap();
    let database = database_url(folder.path(), "account");
    let mut tandem = Process::start(&binary("tandem"), folder.path(), &[("ACCOUNT_DATABASE_URL", &database)]);
    let accounts = tandem.ready_service(account_service::NAME);
    let id = create_account(&accounts);
    let refused = erase(&accounts, &id.to_string());
    let line = String::from_utf8(refused.stderr).expect("text");
    assert!(line.starts_with("error: http://") && line.contains("account_not_deleted"), "{line}");
    assert_eq!((refused.status.code(), line.lines().count()), (Some(1), 1));
    delete_account(&accounts, id);
    for _ in 0..2 {
        let done = erase(&accounts, &id.to_string());
        let text = String::from_utf8(done.stdout).expect("text");
        assert!(done.status.success() && text.starts_with(&format!("The name of account {id} is erased.")), "{text}");
    }
    let account = accounts.get(&format!("/account?id={id}")).expect(200);
    assert_eq!((&account["beholder_name"], &account["version"]), (&json!("erased"), &json!(3)));
    assert_eq!(erase(&accounts, "x").status.code(), Some(2), "no id");
}
