//! Ten million accounts and as many cards: the latency of `POST /card` beside the same with ten thousand, memory and disk for each
//! account, a start, and a start that has to rebuild the view from the embedded log.
//!
//! All data is created over HTTP.

use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use anyhow::ensure;
use tempfile::TempDir;

use crate::load::{self, Collected, Schedule, Until};
use crate::results::{Of, Results, Unit, grouped};
use crate::starts::timed_start;
use crate::system::{Build, System};

/// Accounts, and as many cards; a twentieth of them for a quick look.
const MANY: u64 = 10_000_000;
const FEW: u64 = 10_000;

/// Of so many accounts one has its id kept, to create cards for.
const KEPT: u64 = 10;

/// `POST /card` for random accounts: far below saturation, and enough in a round for a p99.
const SCHEDULE: Schedule = Schedule { rate: 200, seconds: 6, connections: 16 };

/// Rounds, of which the medians are given.
const ROUNDS: usize = 5;

/// Starts that rebuild the view, of which the median is given.
const REBUILDS: usize = 3;

/// The services with their data.
struct Filled {
    folder: TempDir,
    system: System,
    ids: Rc<[String]>,
}

pub(crate) fn measure(builds: &[Build], quick: bool) -> anyhow::Result<Results> {
    let (many, rounds) = if quick { (MANY / 20, 1) } else { (MANY, ROUNDS) };
    let mut results = Results::default();
    let mut all = builds.iter().map(|build| fill(build, many)).collect::<anyhow::Result<Vec<_>>>()?;
    // A comparison of two builds needs no small system: the other build is beside each figure.
    let few = if builds.len() == 1 { Some(fill(&builds[0], FEW)?) } else { None };
    for round in 1..=rounds {
        println!("POST /card with {many} accounts and cards: round {round} of {rounds}");
        for (of, filled) in all
            .iter()
            .map(|filled| (filled.system.of, filled))
            .chain(few.as_ref().map(|few| (Of::Other("with 10,000"), few)))
        {
            let (ids, seed) = (&filled.ids[..], round as u64 * SCHEDULE.count());
            let latencies =
                load::open_loop(filled.system.cards, SCHEDULE, |number| card(ids, seed + number), |_, _| Ok(()))?;
            for (quantile, name) in [(0.5, "p50"), (0.99, "p99")] {
                let what = format!("POST /card, {} accounts and cards: latency {name}", grouped(many));
                results.add(&what, Unit::Milliseconds, of, load::milliseconds(&latencies, quantile));
            }
        }
    }
    if let Some(few) = few {
        few.system.stop()?;
    }
    for (build, filled) in builds.iter().zip(all.drain(..)) {
        let of = build.of;
        filled.system.stop()?;
        let folder = filled.folder.path();
        let (_, empty) = timed_start(build, tempfile::tempdir()?.path())?;
        let each = |bytes: f64| bytes / many as f64;
        let (seconds, mebibytes) = timed_start(build, folder)?;
        results.add(&format!("start, {} accounts and cards", grouped(many)), Unit::Milliseconds, of, seconds * 1_000.0);
        results.add("memory after that start", Unit::Mebibytes, of, mebibytes);
        results.add("memory for each account", Unit::Bytes, of, each((mebibytes - empty) * 1_048_576.0));
        results.add("disk for each account with a card", Unit::Bytes, of, each(size(folder)? as f64));
        for _ in 0..if quick { 1 } else { REBUILDS } {
            remove_checkpoint(folder)?;
            let (seconds, _) = timed_start(build, folder)?;
            results.add("view rebuilt from the embedded log", Unit::PerSecond, of, many as f64 / seconds);
        }
    }
    Ok(results)
}

/// Starts the all-in-one in a folder of its own, and creates so many accounts and cards.
fn fill(build: &Build, count: u64) -> anyhow::Result<Filled> {
    println!("creating {count} accounts and cards");
    let (folder, started) = (tempfile::tempdir()?, Instant::now());
    let system = System::all_in_one(build, folder.path())?;
    let (kept, seen) = (Collected::<String>::default(), std::cell::Cell::new(0));
    let keep = Rc::clone(&kept);
    system.create_accounts(count, move |body| {
        seen.set(seen.get() + 1);
        if seen.get() % KEPT == 0 {
            keep.borrow_mut().extend(load::id_in(body).map(str::to_owned));
        }
    })?;
    let ids: Rc<[String]> = kept.take().into();
    ensure!(!ids.is_empty(), "no ids were kept");
    let of_cards = Rc::clone(&ids);
    let make = move |number| card(&of_cards, number).into();
    load::closed_loop(system.cards, 512, Until::Answered(count), make, |_| ())?;
    println!("created in {:.0} s", started.elapsed().as_secs_f64());
    Ok(Filled { folder, system, ids })
}

/// `POST /card` for an account that follows from `number` and looks random.
fn card(ids: &[String], number: u64) -> Vec<u8> {
    let id = &ids[(scattered(number) % ids.len() as u64) as usize];
    load::post("/card", &format!(r#"{{"country":"US","account_id":"{id}"}}"#))
}

/// SplitMix64.
fn scattered(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Bytes of all files.
fn size(folder: &Path) -> anyhow::Result<u64> {
    fs::read_dir(folder)?.map(|file| Ok(file?.metadata()?.len())).sum()
}

/// Removes the checkpoint of the view, so that the next start reads the whole log.
fn remove_checkpoint(folder: &Path) -> anyhow::Result<()> {
    let mut removed = 0;
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "view") {
            fs::remove_file(path)?;
            removed += 1;
        }
    }
    ensure!(removed > 0, "there is no checkpoint in {}", folder.display());
    Ok(())
}
