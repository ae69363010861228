//! How long the all-in-one takes from the start of its process until both services are ready, and its memory then.

use std::path::Path;
use std::time::Instant;

use crate::results::{Of, Results, Unit, grouped};
use crate::system::{Build, System};

/// Starts of each kind, of which the medians are given.
const STARTS: usize = 15;
/// Accounts of the start with data.
const ACCOUNTS: u64 = 100_000;

pub(crate) fn measure(builds: &[Build], quick: bool) -> anyhow::Result<Results> {
    let mut results = Results::default();
    let starts = if quick { 3 } else { STARTS };
    for _ in 0..starts {
        for build in builds {
            let folder = tempfile::tempdir()?;
            start(&mut results, "first start, empty folder", build, folder.path())?;
        }
    }
    let mut folders = Vec::new();
    for build in builds {
        println!("creating {ACCOUNTS} accounts");
        let folder = tempfile::tempdir()?;
        let system = System::all_in_one(build, folder.path())?;
        system.create_accounts(ACCOUNTS, |_| ())?;
        system.stop()?;
        folders.push(folder);
    }
    for _ in 0..starts {
        for (build, folder) in builds.iter().zip(&folders) {
            start(&mut results, &format!("later start, {} accounts", grouped(ACCOUNTS)), build, folder.path())?;
        }
    }
    Ok(results)
}

fn start(results: &mut Results, what: &str, build: &Build, folder: &Path) -> anyhow::Result<()> {
    let (seconds, mebibytes) = timed_start(build, folder)?;
    add(results, what, build.of, seconds * 1_000.0, mebibytes);
    Ok(())
}

fn add(results: &mut Results, what: &str, of: Of, milliseconds: f64, mebibytes: f64) {
    results.add(what, Unit::Milliseconds, of, milliseconds);
    results.add(&format!("{what}: memory"), Unit::Mebibytes, of, mebibytes);
}

/// Starts the all-in-one and stops it. Returns the seconds until both services were ready, and the resident MiB at that moment.
pub(crate) fn timed_start(build: &Build, folder: &Path) -> anyhow::Result<(f64, f64)> {
    let started = Instant::now();
    let system = System::all_in_one(build, folder)?;
    let seconds = started.elapsed().as_secs_f64();
    let mebibytes = system.resident_mebibytes()?;
    system.stop()?;
    Ok((seconds, mebibytes))
}
