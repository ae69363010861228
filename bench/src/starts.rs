//! How long a start takes until both services are ready, and how much memory the idle process has.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::json;
use test_harness::{Http, Process, binary};

use crate::builds;
use crate::figure::{Figure, Unit};
use crate::machine::status_bytes;
use crate::turns::Turns;

/// Accounts for the start with data.
const ACCOUNTS: u64 = 100_000;

/// Connections that make them.
const CONNECTIONS: usize = 128;

/// Starts, of which the median is given.
const STARTS: usize = 15;

pub(crate) fn measure() -> anyhow::Result<Vec<Figure>> {
    builds::build("tandem")?;
    let folder = tempfile::tempdir()?;
    // The first start makes the files; warm are those after it.
    start(&binary("tandem"), folder.path())?;
    let empty = starts(folder.path())?;
    println!("making {ACCOUNTS} accounts");
    fill(folder.path())?;
    let full = starts(folder.path())?;
    let (empty, full) = (Turns(&empty), Turns(&full));
    Ok(vec![
        empty.figure("warm start to ready", Unit::Milliseconds, Start::milliseconds).at_most(1_000.0),
        full.figure("warm start to ready, 100,000 accounts", Unit::Milliseconds, Start::milliseconds).at_most(2_000.0),
        empty.figure("idle memory", Unit::Mebibytes, Start::mebibytes).at_most(40.0),
        full.figure("idle memory, 100,000 accounts", Unit::Mebibytes, Start::mebibytes),
    ])
}

/// Starts of ours and of the first version by turns, on empty files of their own.
pub(crate) fn compared(ours: &Path, first: &Path) -> anyhow::Result<[Figure; 2]> {
    let folders = (tempfile::tempdir()?, tempfile::tempdir()?);
    let both = || anyhow::Ok((start(ours, folders.0.path())?, start(first, folders.1.path())?));
    both()?;
    let turns = (0..STARTS).map(|_| both()).collect::<anyhow::Result<Vec<_>>>()?;
    let line = |what: &str, unit, of: fn(&Start) -> f64| {
        let beside = Turns(&turns).compared(what, unit, |turn| of(&turn.0), builds::FIRST, |turn| of(&turn.1));
        beside.at_most(1.0)
    };
    Ok([
        line("warm start to ready", Unit::Milliseconds, Start::milliseconds),
        line("idle memory", Unit::Mebibytes, Start::mebibytes),
    ])
}

/// What a start came to.
struct Start {
    seconds: f64,
    /// What is resident then.
    bytes: u64,
}

impl Start {
    fn milliseconds(&self) -> f64 {
        self.seconds * 1_000.0
    }

    fn mebibytes(&self) -> f64 {
        self.bytes as f64 / (1_024.0 * 1_024.0)
    }
}

fn starts(folder: &Path) -> anyhow::Result<Vec<Start>> {
    (0..STARTS).map(|_| start(&binary("tandem"), folder)).collect()
}

fn start(tandem: &Path, folder: &Path) -> anyhow::Result<Start> {
    let started = Instant::now();
    let mut tandem = Process::start(tandem, folder, &[]);
    tandem.ready_service(account_service::NAME);
    tandem.ready_service(card_service::NAME);
    let seconds = started.elapsed().as_secs_f64();
    let bytes = status_bytes(tandem.id(), "VmRSS:")?;
    tandem.terminate();
    Ok(Start { seconds, bytes })
}

fn fill(folder: &Path) -> anyhow::Result<()> {
    let mut tandem = Process::start(&binary("tandem"), folder, &[("LOG_LEVEL", "info")]);
    let accounts = tandem.ready_service(account_service::NAME);
    let left = AtomicU64::new(ACCOUNTS);
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            // A client of its own is a connection of its own.
            let http = Http::new(accounts.address());
            scope.spawn(move || {
                while take() {
                    http.post("/account", &json!({"beholder_name": "John Doe", "country_code": "US"})).expect(201);
                }
            });
        }
    });
    test_harness::wait_until("the view holds them", || {
        let cards = tandem.ready_service(card_service::NAME);
        (cards.get("/readyz").body["view"]["accounts"] == ACCOUNTS).then_some(())
    });
    tandem.terminate();
    Ok(())
}
