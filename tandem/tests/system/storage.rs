//! The files of the all-in-one, on SQLite and the embedded event log whatever the environment says: what a stop leaves, who
//! may read it, and what damage and a failing disk come to.

mod damage;
mod fail_stop;
mod files;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use test_harness::{Http, Process, binary};

/// A folder in which one all-in-one runs.
struct Storage(TempDir);

/// The all-in-one with clients of its services, which are ready.
struct Running {
    process: Process,
    accounts: Http,
    cards: Http,
}

impl Storage {
    fn new() -> Self {
        Storage(TempDir::new().expect("a folder"))
    }

    /// In the folder `data`.
    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join("data").join(name)
    }

    fn start(&self) -> Running {
        self.start_with(&[])
    }

    fn start_with(&self, settings: &[(&str, &str)]) -> Running {
        let mut process = Process::start(&binary("tandem"), self.0.path(), settings);
        let accounts = process.ready_service(account_service::NAME);
        let cards = process.ready_service(card_service::NAME);
        Running { process, accounts, cards }
    }
}

impl Running {
    fn stop(mut self) {
        assert_eq!(self.process.terminate().code(), Some(0), "{:#?}", self.process.lines());
    }

    /// The lines above INFO.
    fn warnings(&self) -> Vec<String> {
        let is_warning = |line: &serde_json::Value| line["level"] == "WARN" || line["level"] == "ERROR";
        self.process.logged().iter().filter(|line| is_warning(line)).map(ToString::to_string).collect()
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(folder).expect("a folder");
    names.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect()
}
