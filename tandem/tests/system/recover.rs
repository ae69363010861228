//! `tandem recover`, as an operator runs it on the data of an all-in-one whose account database was restored.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use test_harness::{POSTGRES_URL, Process, binary, output_of, wait_until};

use crate::requests::{create_account, create_card, delete_account, set_status};

/// Runs it on the data in `folder`.
fn recover(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("tandem"));
    command.arg("recover").args(arguments).current_dir(folder).env_clear();
    output_of(&mut command)
}

fn printed(output: &Output) -> String {
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{}: {complaints}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn an_older_copy_of_the_accounts_is_refused_until_it_is_recovered() {
    // The files that are copied are SQLite's.
    if std::env::var_os(POSTGRES_URL).is_some() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut tandem = Process::start(&binary("tandem"), folder.path(), &[]);
    let accounts = tandem.ready_service(account_service::NAME);
    let [blocked, deleted] = [(); 2].map(|()| create_account(&accounts));
    let refused = recover(folder.path(), &[]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("in use"), "{refused:?}");
    assert!(tandem.terminate().success());
    let [database, copy] = ["data/account.db", "copy.db"].map(|name| folder.path().join(name));
    fs::copy(&database, &copy).unwrap();

    let mut tandem = Process::start(&binary("tandem"), folder.path(), &[]);
    let accounts = tandem.ready_service(account_service::NAME);
    set_status(&accounts, blocked, "BLOCKED");
    delete_account(&accounts, deleted);
    let lost = create_account(&accounts);
    assert!(tandem.terminate().success());
    fs::copy(&copy, &database).unwrap();

    let mut tandem = Process::start(&binary("tandem"), folder.path(), &[]);
    let accounts = tandem.service(account_service::NAME);
    let reason = wait_until("it is superseded", || {
        let ready = accounts.get("/readyz");
        Some(ready.raw).filter(|text| ready.status == 503 && text.contains("superseded: "))
    });
    assert!(reason.contains("run tandem recover"), "{reason}");
    assert!(tandem.terminate().success(), "{:#?}", tandem.lines());
    let said = tandem.lines();
    let lines = said.iter().filter(|line| line.contains("superseded and takes no writes"));
    assert_eq!(lines.count(), 1, "once: {said:#?}");

    let text = printed(&recover(folder.path(), &["--dry-run"]));
    assert!(text.contains("2 accounts would take the newer state") && text.contains(&lost.to_string()), "{text}");
    assert!(text.ends_with("Nothing was written. Run without --dry-run to recover.\n"), "{text}");
    let text = printed(&recover(folder.path(), &["--lost=block"]));
    assert!(text.contains("1 of them are blocked."), "{text}");
    assert!(text.ends_with("Done: the account service takes writes again.\n"), "{text}");

    let mut tandem = Process::start(&binary("tandem"), folder.path(), &[]);
    let accounts = tandem.ready_service(account_service::NAME);
    let cards = tandem.ready_service(card_service::NAME);
    let status = |id| accounts.get(&format!("/account?id={id}")).expect(200)["status"].clone();
    assert_eq!([status(blocked), status(deleted)], ["BLOCKED", "DELETED"]);
    assert_eq!(accounts.get(&format!("/account?id={lost}")).status, 404);
    wait_until("the lost account is blocked", || (create_card(&cards, lost).status == 403).then_some(()));
    let new = create_account(&accounts);
    wait_until("the view knows the new account", || (create_card(&cards, new).status == 201).then_some(()));
    assert!(tandem.terminate().success());
}
