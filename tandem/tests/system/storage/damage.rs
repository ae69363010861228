//! Pages that are not what was written.

use std::fs;
use std::path::Path;

use serde_json::json;
use test_harness::{Process, binary, wait_until};

use super::Storage;
use crate::requests::{create_account, error, john_doe};

/// A page of the databases, in bytes.
const PAGE: usize = 4_096;

/// Accounts on several pages.
const ACCOUNTS: usize = 300;

/// The first byte of a page of rows (sqlite.org/fileformat2.html, 1.6). An inner page may have an old copy of a row.
const ROWS: u8 = 0x0d;

/// Where `text` is in the file at `path`, `so` that it is the right one.
fn find(path: &Path, text: &str, so: impl Fn(&[u8], usize) -> bool) -> usize {
    let bytes = fs::read(path).expect("a file");
    let mut places = bytes.windows(text.len()).enumerate().filter(|(_, window)| *window == text.as_bytes());
    places.find(|(at, _)| so(&bytes, *at)).expect("the text is in the file").0
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("a file");
    change(&mut bytes);
    fs::write(path, bytes).expect("a file");
}

#[test]
fn a_damaged_page_is_logged_once_and_shown_while_other_reads_work() {
    let storage = Storage::new();
    let running = storage.start();
    let name = "Damaged Page";
    let damaged = json!({ "beholder_name": name, "country_code": "US" });
    let damaged = running.accounts.post("/account", &damaged).expect(201)["id"].as_str().expect("an id").to_owned();
    let accounts: Vec<_> = (0..ACCOUNTS).map(|_| create_account(&running.accounts)).collect();
    let sound = accounts[ACCOUNTS - 1];
    running.stop();
    let path = storage.file("account.db");
    let page = find(&path, name, |bytes, at| bytes[at / PAGE * PAGE] == ROWS) / PAGE * PAGE;
    change(&path, |bytes| bytes[page..page + PAGE].fill(0xa5));

    let running = storage.start();
    let read = |id: &dyn std::fmt::Display| running.accounts.get(&format!("/account?id={id}")).status;
    for _ in 0..5 {
        assert_eq!((read(&damaged), read(&sound)), (503, 200));
    }
    let ready = wait_until("it is a warning", || {
        let ready = running.accounts.get("/readyz");
        (ready.status == 200).then_some(ready)
    });
    let warning = ready.body["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("some reads fail") && warning.contains("malformed"), "{warning}");
    assert!(!ready.raw.contains("account.db"), "no path for everyone: {}", ready.raw);
    let lines = running.warnings();
    assert!(lines.len() == 1 && lines[0].contains("a read of the database failed"), "{lines:#?}");
    running.accounts.post("/account", &john_doe()).expect(201);
    running.stop();
}

#[test]
fn a_damaged_event_log_is_not_catching_up() {
    let storage = Storage::new();
    let running = storage.start();
    let account = create_account(&running.accounts).to_string();
    wait_until("it is published", || (running.accounts.get("/readyz").body["relay"]["published"] == 1).then_some(()));
    running.stop();
    fs::remove_file(storage.file("card.db.view")).expect("a checkpoint");
    let path = storage.file("event-log.db");
    // The key of the record. In its value and in the owner record the id follows a quotation mark.
    let at = find(&path, &account, |bytes, at| bytes[at - 1] != b'"');
    change(&path, |bytes| bytes[at] ^= 1);

    let mut process = Process::start(&binary("tandem"), storage.0.path(), &[]);
    let cards = process.service(card_service::NAME);
    let ready = wait_until("it says why", || {
        let ready = cards.get("/readyz");
        error(&ready).contains("the event log is damaged").then_some(ready)
    });
    assert_eq!(ready.status, 503);
    assert!(!error(&ready).contains("is catching up"), "{}", ready.raw);
    assert!(!ready.raw.contains("data/"), "no path for everyone: {}", ready.raw);
    process.terminate();
}
