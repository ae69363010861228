//! Commit to visible: how long after an account is committed the card service's view has it.
//!
//! Both services run in this process, over HTTP, with whatever log and databases are asked for. Accounts are made on a
//! fixed schedule, so a stall shows in all that it delays. Visible is the moment when the record has been applied
//! to the view: the log is wrapped to see it. Committed is the moment when the answer has arrived, or when the relay begins
//! to publish if that is earlier: the commit itself ends a little before either.
//!
//! How many accounts a second there are at half of saturation is found anew before each turn: by as many requests as 64
//! connections take, in the same process and on the same files. The generator runs there too, on the same cores, in threads
//! whose processor time is told apart.

pub(crate) mod on_servers;
mod services;
mod watched_log;

use std::sync::Arc;
use std::time::Duration;

use database::DatabaseUrl;
use event_log::{EmbeddedLog, EmbeddedSettings};
use hdrhistogram::Histogram;

use self::services::{Services, Setup, Turn};
use crate::figure::{Figure, Unit};
use crate::load::Schedule;
use crate::milliseconds;
use crate::turns::{Turns, median};

/// Turns at half of saturation, of which the medians are given.
const TURNS: usize = 5;

/// How long saturation takes to be found, and how long the turn behind it takes, with its first second, which does not count.
const SATURATING: Duration = Duration::from_secs(3);
const SECONDS: u32 = 6;
const WARM_UP: Duration = Duration::from_secs(1);

/// More connections than are ever busy at once, stalls aside.
const CONNECTIONS: usize = 64;

/// Accounts a second that leave the machine quiet.
const QUIET: u32 = 500;

/// Over SQLite and the embedded log, as the all-in-one runs.
pub(crate) fn measure(quick: bool) -> anyhow::Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let file = |name| DatabaseUrl::Sqlite(folder.path().join(name));
    let log = EmbeddedLog::open(EmbeddedSettings::at(folder.path().join("event-log.db")))?;
    let setup = Setup { log: Arc::new(log), account_database: file("account.db"), card_database: file("card.db") };
    let services = Services::start(setup)?;
    println!("making {QUIET} accounts a second for {SECONDS} s");
    let at = |rate| Schedule { rate, seconds: SECONDS, connections: CONNECTIONS };
    let quiet = services.turn(at(QUIET), WARM_UP)?;
    let count = if quick { 1 } else { TURNS };
    let (mut saturations, mut turns) = (Vec::new(), Vec::new());
    for number in 1..=count {
        let saturation = services.saturation(SATURATING)?;
        let half = (saturation / 2.0) as u32;
        println!("making {half} accounts a second, half of saturation, for {SECONDS} s: turn {number} of {count}");
        saturations.push(saturation);
        turns.push(services.turn(at(half), WARM_UP)?);
    }
    services.stop()?;

    let what = "commit to visible, half of saturation";
    let mut figures = vec![
        commit_to_visible(&turns, what, 0.5).at_most(1.0),
        Turns(&turns)
            .compared(
                format!("{what}, p99"),
                Unit::Milliseconds,
                |turn| milliseconds(&turn.commit_to_visible, 0.99),
                "the POST itself, p99",
                |turn| milliseconds(&turn.due_to_answered, 0.99),
            )
            .at_most(2.0),
        Figure::new("  at saturation, 64 connections", median(saturations), Unit::PerSecond),
    ];
    figures.extend(beside(&turns));
    figures.push(commit_to_visible(&[quiet], &format!("commit to visible, {QUIET} accounts a second"), 0.5));
    Ok(figures)
}

/// A quantile from commit to visible.
fn commit_to_visible(turns: &[Turn], what: &str, quantile: f64) -> Figure {
    latency(turns, what, quantile, |turn| &turn.commit_to_visible)
}

/// What else there is to say of turns.
fn beside(turns: &[Turn]) -> Vec<Figure> {
    let visible = |quantile| latency(turns, "  POST /account due to visible", quantile, |turn| &turn.due_to_visible);
    let answered = |quantile| latency(turns, "  POST /account due to answered", quantile, |turn| &turn.due_to_answered);
    let turns = Turns(turns);
    vec![
        visible(0.5),
        visible(0.99),
        answered(0.5),
        answered(0.99),
        turns.figure("  accounts a second", Unit::PerSecond, |turn| turn.rate),
        turns.figure("  services' processor time a request", Unit::Microseconds, |turn| turn.services_micros),
        turns.figure("  generator's processor time a request", Unit::Microseconds, |turn| turn.generator_micros),
        turns.figure("  raw syncs at the same turns", Unit::PerSecond, |turn| turn.syncs),
    ]
}

fn latency(turns: &[Turn], what: &str, quantile: f64, of: fn(&Turn) -> &Histogram<u64>) -> Figure {
    let what = format!("{what}, p{:.0}", quantile * 100.0);
    Turns(turns).figure(what, Unit::Milliseconds, |turn| milliseconds(of(turn), quantile))
}
