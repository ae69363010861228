//! How long a start takes until both services are ready, and how much memory the idle process has.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use serde_json::json;
use test_harness::{Http, Process, binary};

use crate::builds;
use crate::figure::{Figure, Unit};

/// Accounts for the start with data.
const ACCOUNTS: u64 = 100_000;

/// Connections that make them.
const CONNECTIONS: usize = 128;

/// Starts, of which the median is given.
const STARTS: usize = 5;

pub(crate) fn measure() -> anyhow::Result<Vec<Figure>> {
    builds::build("tandem")?;
    let folder = tempfile::tempdir()?;
    // The first start makes the files; warm are those after it.
    start(folder.path())?;
    let (empty_seconds, empty_memory) = median_start(folder.path())?;
    println!("making {ACCOUNTS} accounts");
    fill(folder.path())?;
    let (full_seconds, full_memory) = median_start(folder.path())?;
    let milliseconds = |what, seconds: f64| Figure::new(what, seconds * 1_000.0, Unit::Milliseconds);
    let memory = |what, kib: u64| Figure::new(what, kib as f64 / 1_024.0, Unit::Mebibytes);
    Ok(vec![
        milliseconds("warm start to ready", empty_seconds).at_most(1_000.0),
        milliseconds("warm start to ready, 100,000 accounts", full_seconds).at_most(2_000.0),
        memory("idle memory", empty_memory).at_most(40.0),
        memory("idle memory, 100,000 accounts", full_memory),
    ])
}

/// The medians of seconds until ready and of resident KiB then.
fn median_start(folder: &Path) -> anyhow::Result<(f64, u64)> {
    let mut starts = (0..STARTS).map(|_| start(folder)).collect::<anyhow::Result<Vec<_>>>()?;
    starts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let seconds = starts[STARTS / 2].0;
    starts.sort_by_key(|start| start.1);
    Ok((seconds, starts[STARTS / 2].1))
}

fn start(folder: &Path) -> anyhow::Result<(f64, u64)> {
    let started = Instant::now();
    let mut tandem = Process::start(&binary("tandem"), folder, &[]);
    tandem.ready_service(account_service::NAME);
    tandem.ready_service(card_service::NAME);
    let seconds = started.elapsed().as_secs_f64();
    let memory = resident_kib(tandem.id())?;
    tandem.terminate();
    Ok((seconds, memory))
}

/// What `/proc` says is in memory, shared libraries included.
fn resident_kib(process: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.trim().trim_end_matches(" kB").trim().parse().context("VmRSS is no number")
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
