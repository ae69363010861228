//! The checkpoint of the account view over processes that end as they like: SIGTERM writes one, `kill -9` leaves the one
//! before, and each start says in a line what it began with.

use std::fs;
use std::path::Path;

use account_events::{AccountId, AccountStatus};
use serde_json::Value;
use tempfile::TempDir;
use test_harness::{POSTGRES_URL, Process, binary, wait_until};
use uuid::Uuid;

use crate::events::record;
use crate::place::Place;
use crate::requests::{create_account, create_card, delete_account, error, set_status};

/// Accounts told of before the first start: so many that one which reads them all cannot be taken for one that does not.
const ACCOUNTS: u64 = 20_000;

/// More than a start from a checkpoint reads again, and what these tests add.
const FEW: u64 = 3 * 8 * 256 + 100;

const LOADED: &str = "the account view comes from its checkpoint";
const NOT_USED: &str = "the checkpoint of the account view is not used, and the event log is read from its start";
const READY: &str = "the account view holds every account";

fn line(process: &Process, message: &str) -> Option<Value> {
    process.logged().into_iter().find(|line| line["message"] == message)
}

/// A log with accounts whose ids are 1, 2, and so on.
fn place() -> Place {
    let place = Place::durable();
    let id = |n: u64| AccountId(Uuid::from_u128(n.into()));
    let records: Vec<_> = (1..=ACCOUNTS).map(|n| record(id(n), 1, AccountStatus::Active)).collect();
    place.publish(&records);
    place
}

/// Checks that the process has begun with a checkpoint of at least so many accounts, and is ready after a few records.
#[track_caller]
fn assert_loaded(process: &Process, accounts: u64) {
    let loaded = line(process, LOADED).unwrap_or_else(|| panic!("{:#?}", process.lines()));
    assert!(loaded["accounts"].as_u64() >= Some(accounts), "{loaded}");
    let ready = wait_until("it says that it is ready", || line(process, READY));
    assert!(ready["records"].as_u64() < Some(FEW), "{ready}");
}

#[test]
fn after_kill_9_the_checkpoint_before_is_gone_on_from() {
    let place = place();
    let mut tandem = place.start_all_in_one();
    tandem.ready_service(card_service::NAME);
    assert!(line(&tandem, LOADED).is_none());
    assert!(tandem.terminate().success(), "{:#?}", tandem.lines());

    let mut ids = Vec::new();
    for round in 0..3 {
        let mut tandem = place.start_all_in_one();
        let accounts = tandem.ready_service(account_service::NAME);
        let cards = tandem.ready_service(card_service::NAME);
        assert_loaded(&tandem, ACCOUNTS);
        let known = |id, expected: u16| {
            wait_until("the view knows it", || (create_card(&cards, id).status == expected).then_some(()));
        };
        // What the rounds before have made and deleted; they were killed, so it is in no checkpoint. What the embedded log had
        // shown and not yet synced is published once more, after the start.
        for (kept, deleted) in &ids {
            known(*kept, 201);
            known(*deleted, 403);
            assert_eq!(error(&create_card(&cards, *deleted)), "cannot create card for deleted account");
        }
        let (kept, deleted) = (create_account(&accounts), create_account(&accounts));
        known(kept, 201);
        known(deleted, 201);
        delete_account(&accounts, deleted);
        known(deleted, 403);
        ids.push((kept, deleted));
        match round {
            2 => assert!(tandem.terminate().success(), "{:#?}", tandem.lines()),
            _ => tandem.kill(),
        }
    }
    let mut tandem = place.start_all_in_one();
    let accounts = tandem.ready_service(account_service::NAME);
    let cards = tandem.ready_service(card_service::NAME);
    assert_loaded(&tandem, ACCOUNTS + 2 * ids.len() as u64);
    for (kept, deleted) in ids {
        create_card(&cards, kept).expect(201);
        assert_eq!(error(&create_card(&cards, deleted)), "cannot create card for deleted account");
        set_status(&accounts, kept, "BLOCKED");
        wait_until("the view follows", || (create_card(&cards, kept).status == 403).then_some(()));
    }
}

#[test]
fn a_start_says_why_a_checkpoint_is_not_used_and_once_that_none_can_be_written() {
    // On SQLite and the embedded event log alone, which lie where the test can reach them.
    if std::env::var_os(POSTGRES_URL).is_some() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let (data, path) = (folder.path().join("data"), folder.path().join("data/card.db.view"));
    let run = |folder: &Path| {
        let mut tandem = Process::start(&binary("tandem"), folder, &[]);
        let accounts = tandem.ready_service(account_service::NAME);
        let cards = tandem.ready_service(card_service::NAME);
        let id = create_account(&accounts);
        wait_until("the view knows it", || (create_card(&cards, id).status == 201).then_some(()));
        assert!(tandem.terminate().success(), "{:#?}", tandem.lines());
        tandem
    };
    let reason = |tandem: &Process| line(tandem, NOT_USED).expect("it says so")["reason"].to_string();
    let first = run(folder.path());
    assert!(line(&first, NOT_USED).is_none() && line(&first, LOADED).is_none(), "there is none yet");
    assert!(line(&run(folder.path()), LOADED).is_some());

    let bytes = fs::read(&path).unwrap();
    for (damaged, expected) in [
        (&bytes[..bytes.len() / 2], "it is cut short"),
        (&[&bytes[..bytes.len() - 1], b"x"].concat(), "it is damaged: a checksum is wrong"),
        (b"another file", "it is not a checkpoint of this version"),
    ] {
        fs::write(&path, damaged).unwrap();
        let tandem = run(folder.path());
        assert!(reason(&tandem).contains(expected), "{:#?}", tandem.lines());
    }
    let other = TempDir::new().unwrap();
    run(other.path());
    fs::copy(other.path().join("data/card.db.view"), &path).unwrap();
    let tandem = run(folder.path());
    assert!(reason(&tandem).contains("it is of another card database"), "{:#?}", tandem.lines());

    fs::remove_file(&path).unwrap();
    // No file takes the place of a folder.
    fs::create_dir(&path).unwrap();
    let tandem = run(folder.path());
    assert!(reason(&tandem).contains("it cannot be read: "), "{:#?}", tandem.lines());
    let warning = "no checkpoint of the account view can be written: starts will take longer";
    let warnings = tandem.logged().into_iter().filter(|line| line["message"] == warning);
    assert_eq!(warnings.count(), 1, "{:#?}", tandem.lines());
    let left: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".unfinished")), "{left:?}");
}
