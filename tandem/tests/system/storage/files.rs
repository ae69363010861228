//! What is on disk while the all-in-one runs and after a clean stop.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use test_harness::{Process, binary, wait_until};

use super::{Running, Storage, names};
use crate::requests::{create_account, create_card};

const DATABASES: [&str; 3] = ["account.db", "card.db", "event-log.db"];

/// Copies the databases, and nothing beside them.
fn copy_databases(from: &Storage) -> Storage {
    let copy = Storage::new();
    fs::DirBuilder::new().mode(0o700).create(copy.file("")).expect("a folder");
    for name in DATABASES {
        fs::copy(from.file(name), copy.file(name)).expect("a copy");
    }
    copy
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[test]
fn a_clean_stop_leaves_whole_files_and_a_copy_of_them_has_every_row() {
    let storage = Storage::new();
    let running = storage.start();
    for _ in 0..20 {
        let account = create_account(&running.accounts);
        wait_until("the card is made", || (create_card(&running.cards, account).status == 201).then_some(()));
    }
    let totals = |running: &Running| {
        let accounts = running.accounts.get("/accounts?limit=1").expect(200)["total"].clone();
        (accounts, running.cards.get("/cards?limit=1").expect(200)["total"].clone())
    };
    assert_eq!(totals(&running), (20.into(), 20.into()));
    // While it runs, the main files alone lack rows, and a start on them says so.
    let torn = copy_databases(&storage);
    let restarted = torn.start();
    for name in DATABASES {
        let of_file = |line: &&String| line.contains(&format!("{name}-wal is missing"));
        assert_eq!(restarted.warnings().iter().filter(of_file).count(), 1, "{:#?}", restarted.warnings());
    }
    restarted.stop();

    running.stop();
    let whole: BTreeSet<_> = DATABASES.into_iter().chain(["card.db.view"]).map(str::to_owned).collect();
    assert_eq!(names(&storage.file("")), whole);
    let copy = copy_databases(&storage);
    let restarted = copy.start();
    assert_eq!(totals(&restarted), (20.into(), 20.into()));
    assert_eq!(restarted.warnings(), Vec::<String>::new());
    restarted.stop();
}

#[test]
fn what_is_stored_is_for_its_owner_alone() {
    let storage = Storage::new();
    let mut running = storage.start();
    create_account(&running.accounts);
    let all = names(&storage.file(""));
    assert!(all.contains("account.db-wal") && all.contains("card.db-shm"), "{all:?}");
    running.process.terminate();
    let stopped = names(&storage.file(""));
    let running = storage.start();
    for name in all.iter().chain(&stopped) {
        let path = storage.file(name);
        assert_eq!(mode(&path), 0o600, "{name}");
    }
    assert_eq!(mode(&storage.file("")), 0o700);
    assert_eq!(running.warnings(), Vec::<String>::new());
    running.stop();

    for (name, mode) in [("", 0o755), ("account.db", 0o644), ("card.db.view", 0o604)] {
        fs::set_permissions(storage.file(name), fs::Permissions::from_mode(mode)).expect("a change of mode");
    }
    let running = storage.start();
    let warnings = running.warnings().join("\n");
    for command in ["chmod 700 ./data", "chmod 600 ./data/account.db", "chmod 600 ./data/card.db.view"] {
        assert_eq!(warnings.matches(command).count(), 2, "once in the text and once as a field: {warnings}");
    }
    running.stop();
    assert_eq!(mode(&storage.file("account.db")), 0o644, "the owner decides");
}

#[test]
fn a_database_behind_a_link_works_and_is_the_same_one() {
    let storage = Storage::new();
    fs::create_dir_all(storage.0.path().join("disk")).expect("a folder");
    fs::create_dir(storage.file("")).expect("a folder");
    symlink("../disk/accounts.db", storage.file("account.db")).expect("a link");
    let running = storage.start();
    create_account(&running.accounts);
    assert_eq!(running.accounts.get("/accounts?limit=1").expect(200)["total"], 1);
    let settings = [("DATA_DIR", "other"), ("ACCOUNT_DATABASE_URL", "sqlite:disk/../disk/accounts.db")];
    let mut second = Process::start(&binary("tandem"), storage.0.path(), &settings);
    assert_eq!(second.wait().code(), Some(1));
    let lines = second.lines().join("\n");
    assert!(lines.contains("accounts.db is in use by another process"), "{lines}");
    running.stop();
    assert_eq!(names(&storage.0.path().join("disk")), BTreeSet::from(["accounts.db".to_owned()]));
}
