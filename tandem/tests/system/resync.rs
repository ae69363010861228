//! `tandem resync`, as an operator runs it.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use test_harness::{Process, binary, database_url, output_of, wait_until};

use crate::requests::create_account;

/// The last line where it was done.
pub(crate) const DONE: &str = "Done: the event log has the state of every account.\n";

/// Runs it on the data in `folder`, and gives what it printed.
pub(crate) fn resync(folder: &Path, settings: &[(&str, &str)]) -> String {
    let mut command = Command::new(binary("tandem"));
    command.arg("resync").current_dir(folder).env_clear().envs(settings.iter().copied());
    let output = output_of(&mut command);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let complaints = text(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{}: {complaints}", output.status);
    text(&output.stdout)
}

/// Has a running service on this PostgreSQL publish every account again.
pub(crate) fn publish_again(database: &str) {
    let folder = TempDir::new().expect("a folder");
    let said = resync(folder.path(), &[("ACCOUNT_DATABASE_URL", database)]);
    assert!(said.ends_with(DONE), "{said}");
}

#[test]
fn a_running_service_publishes_every_account_again_and_so_does_the_next_one_to_start() {
    let folder = TempDir::new().unwrap();
    let database = database_url(folder.path(), "account");
    let settings = [("ACCOUNT_DATABASE_URL", database.as_str())];
    let mut tandem = Process::start(&binary("tandem"), folder.path(), &settings);
    let (accounts, cards) = (tandem.ready_service(account_service::NAME), tandem.ready_service(card_service::NAME));
    let records = || cards.get("/readyz").expect(200)["view"]["records"].as_u64().expect("a number");
    for _ in 0..3 {
        create_account(&accounts);
    }
    wait_until("the view has read them", || (records() == 3).then_some(()));
    assert!(resync(folder.path(), &settings).ends_with(DONE));
    wait_until("the view has read their states", || (records() == 6).then_some(()));

    assert!(tandem.terminate().success(), "{:#?}", tandem.lines());
    assert!(resync(folder.path(), &settings).ends_with(": the next one to start will do it.\n"));
    let mut tandem = Process::start(&binary("tandem"), folder.path(), &settings);
    let cards = tandem.ready_service(card_service::NAME);
    wait_until("the view has read all of it", || {
        let records = cards.get("/readyz").expect(200)["view"]["records"].as_u64();
        (records == Some(9)).then_some(())
    });
}

#[test]
fn where_there_is_no_database_it_says_so_and_makes_none() {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(binary("tandem"));
    let output = output_of(command.args(["resync", "--data-dir", "nowhere"]).current_dir(folder.path()).env_clear());
    let line = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{line}");
    assert!(line.starts_with("error: cannot open nowhere/account.db: ") && line.lines().count() == 1, "{line}");
    assert!(!folder.path().join("nowhere").exists());
}
