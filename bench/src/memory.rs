//! What the account view takes of memory, and how a look-up in it goes beside its writer.
//!
//! A view is filled in a process of its own, which does nothing else, so that what is resident there grows by the view alone. The
//! look-ups are those of `POST /card`, one after the other in random places of a table that is far larger than a processor's
//! own caches.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use account_events::AccountId;
use anyhow::{Context, anyhow, ensure};
use card_service::account_view::{AccountView, ViewWriter, account_view};
use serde_json::{Value, json};

use crate::accounts::{active, any_id};
use crate::figure::{Figure, Unit};
use crate::machine::status_bytes;
use crate::turns::median;

/// Accounts in the views whose memory is measured.
const ACCOUNTS: [u64; 2] = [1_000_000, 10_000_000];

/// Accounts in the view that is looked up in.
const LOOKED_UP: u64 = 1_000_000;

/// Turns of look-ups, each without and with a writer, of which the medians are given.
const ROUNDS: usize = 5;

/// How often each account is looked up in a turn.
const PASSES: u64 = 5;

/// The writer adds an account each time it has changed so many.
const CHANGES_AN_ADDITION: u64 = 15;

pub(crate) fn measure(quick: bool) -> anyhow::Result<Vec<Figure>> {
    let scale = if quick { 10 } else { 1 };
    let mut figures = Vec::new();
    for accounts in ACCOUNTS.map(|accounts| accounts / scale) {
        figures.extend(view_memory(accounts)?);
    }
    figures.extend(look_ups(LOOKED_UP / scale)?);
    Ok(figures)
}

/// Has a process of its own fill a view.
fn view_memory(accounts: u64) -> anyhow::Result<[Figure; 2]> {
    println!("filling a view with {accounts} accounts");
    let output = Command::new(std::env::current_exe()?).args(["--fill-view", &accounts.to_string()]).output()?;
    ensure!(output.status.success(), "no view was filled: {}", String::from_utf8_lossy(&output.stderr));
    let grown: Value = serde_json::from_slice(&output.stdout)?;
    let [resident, peak] = ["resident", "peak"].map(|name| {
        let bytes = grown[name].as_u64().with_context(|| format!("it does not say {name}"))?;
        anyhow::Ok(bytes as f64 / accounts as f64)
    });
    let (resident, peak) = (resident?, peak?);
    Ok([
        Figure::new(format!("an account in the view, of {accounts}"), resident, Unit::Bytes).at_most(24.0),
        Figure::new("  at most while it grows", peak, Unit::Bytes).against("in the end", resident).at_most(1.3),
    ])
}

/// Fills a view, and prints by how many bytes this process has grown, and by how many it had at most.
pub(crate) fn fill_view(accounts: u64) -> anyhow::Result<()> {
    // What any process has once, code above all, is not the view's.
    let (mut first, _) = account_view();
    add(&mut first, 0..1)?;
    // Has the kernel forget the highest so far.
    fs::write("/proc/self/clear_refs", "5")?;
    let own = |name| status_bytes(std::process::id(), name);
    let (resident, peak) = (own("VmRSS:")?, own("VmHWM:")?);
    let (mut writer, view) = account_view();
    add(&mut writer, 0..accounts)?;
    let (resident, peak) = (own("VmRSS:")? - resident, own("VmHWM:")? - peak);
    ensure!(view.len() == accounts, "the view holds {} accounts", view.len());
    println!("{}", json!({"resident": resident, "peak": peak}));
    Ok(())
}

fn add(writer: &mut ViewWriter, accounts: std::ops::Range<u64>) -> anyhow::Result<()> {
    for number in accounts {
        writer.apply(&active(any_id(number), 1));
    }
    Ok(())
}

/// Nanoseconds a look-up takes, without and with a writer.
fn look_ups(accounts: u64) -> anyhow::Result<[Figure; 2]> {
    println!("looking up {accounts} accounts, without and with a writer");
    // Where an id is in the view has nothing to do with its number, so one after the other is in random places.
    let ids = (0..accounts).map(any_id).collect::<Vec<_>>();
    let (mut writer, view) = account_view();
    add(&mut writer, 0..accounts)?;
    let mut writing = Writing { writer, ids: &ids, version: 1, next: 0, added: accounts };
    let (mut idle, mut beside, mut ratios, mut writes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let alone = nanoseconds(&view, &ids)?;
        let (with_writer, rate) = beside_writer(&view, &mut writing)?;
        idle.push(alone);
        beside.push(with_writer);
        ratios.push(with_writer / alone);
        writes.push(rate);
    }
    Ok([
        Figure::new("a look-up beside a writer at full speed", median(beside), Unit::Nanoseconds)
            .against_with_ratio("beside none", median(idle), median(ratios))
            .at_most(1.3),
        Figure::new("  what the writer applied", median(writes), Unit::PerSecond),
    ])
}

fn nanoseconds(view: &AccountView, ids: &[AccountId]) -> anyhow::Result<f64> {
    let (started, mut found) = (Instant::now(), 0);
    for _ in 0..PASSES {
        found += ids.iter().filter(|id| view.get(**id).is_some()).count() as u64;
    }
    let nanoseconds = started.elapsed().as_nanos() as f64;
    let look_ups = ids.len() as u64 * PASSES;
    ensure!(found == look_ups, "{found} of {look_ups} accounts were found");
    Ok(nanoseconds / look_ups as f64)
}

/// The same while a thread writes all the time; and how many events a second that applied.
fn beside_writer(view: &AccountView, writing: &mut Writing<'_>) -> anyhow::Result<(f64, f64)> {
    let (ids, applied, stop) = (writing.ids, AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let thread = scope.spawn(|| writing.run(&applied, &stop));
        while applied.load(Ordering::Relaxed) == 0 && !thread.is_finished() {
            std::hint::spin_loop();
        }
        let (before, started) = (applied.load(Ordering::Relaxed), Instant::now());
        let nanoseconds = nanoseconds(view, ids);
        let rate = (applied.load(Ordering::Relaxed) - before) as f64 / started.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        thread.join().map_err(|_| anyhow!("the writer panicked"))??;
        Ok((nanoseconds?, rate))
    })
}

/// A writer with no pause: it gives one account after the other a higher version, and adds one now and then.
struct Writing<'a> {
    writer: ViewWriter,
    ids: &'a [AccountId],
    version: u32,
    next: usize,
    added: u64,
}

impl Writing<'_> {
    /// Counts in `applied` until `stop`.
    fn run(&mut self, applied: &AtomicU64, stop: &AtomicBool) -> anyhow::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..CHANGES_AN_ADDITION {
                if self.next == 0 {
                    self.version += 1;
                }
                self.writer.apply(&active(self.ids[self.next], self.version));
                self.next = (self.next + 1) % self.ids.len();
            }
            self.writer.apply(&active(any_id(self.added), 1));
            self.added += 1;
            applied.fetch_add(CHANGES_AN_ADDITION + 1, Ordering::Relaxed);
        }
        Ok(())
    }
}
