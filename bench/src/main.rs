//! `cargo run --release -p bench`: what Tandem costs on the machine at hand, beside what the machine allows, or a peer reaches.
//!
//! It measures in parts, each of which can be asked for alone. A part prints its table, and keeps it under `docs/bench`. Nothing
//! here fails by itself: a machine may be slow or busy, and whoever reads the table judges.

mod accounts;
mod backlog;
mod builds;
mod figure;
mod flat;
mod load;
mod machine;
mod memory;
mod peers;
mod pgbench;
mod postgres;
mod replay;
mod report;
mod saturation;
mod servers;
mod starts;
mod turns;
mod visible;

use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;

use crate::figure::{Figure, table};
use crate::servers::Servers;

/// What every account is made of: the flow's own.
const ACCOUNT: &str = r#"{"beholder_name":"John Doe","country_code":"US"}"#;

/// Measures Tandem on this machine and prints a table.
#[derive(Parser)]
#[command(name = "bench")]
struct Options {
    /// A tenth of the data and of the turns, and no cold build and no test run, which take minutes; nothing is kept
    #[arg(long)]
    quick: bool,

    /// Fills a view with so many accounts, for the part that measures its memory
    #[arg(long, hide = true, value_name = "ACCOUNTS")]
    fill_view: Option<u64>,

    /// Starts the card service in a folder, on an embedded log's file or the brokers and topic of one, for the part that measures
    /// such starts
    #[arg(long, hide = true, num_args = 2, value_names = ["FOLDER", "LOG"])]
    start: Option<Vec<String>>,

    /// What to measure; all of it if nothing is named
    parts: Vec<Part>,
}

/// What there is to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// A start until both services are ready, and the memory of the idle process
    Starts,
    /// Accounts and cards a second on SQLite, beside the limits
    Saturation,
    /// From a commit to the card service's view at half of saturation, on SQLite and the embedded log
    Visible,
    /// The same on PostgreSQL and Apache Kafka, which dev/servers starts, beside bare librdkafka and pgbench's commits
    ServersVisible,
    /// Accounts and cards a second on PostgreSQL and Apache Kafka, beside pgbench
    ServersSaturation,
    /// The card service's start on a full log until it is ready, and its next one; on Kafka beside bare librdkafka
    Replay,
    /// The account view's memory, and a look-up beside its writer
    Memory,
    /// POST /card and every list at ten million accounts and cards beside ten thousand, and what they take on the disk
    Flat,
    /// Draining a million events from the outbox after the log was away, beside bare producers
    Backlog,
    /// A cold build, the binaries' size, a start and its memory beside the first version's; and the test run
    Builds,
}

fn main() -> anyhow::Result<()> {
    let Options { quick, fill_view, start, parts } = Options::parse();
    if let Some(accounts) = fill_view {
        return memory::fill_view(accounts);
    }
    if let Some([folder, log]) = start.as_deref() {
        return replay::start(folder.as_ref(), log);
    }
    let parts = if parts.is_empty() { Part::value_variants() } else { &parts };
    let mut all = Vec::new();
    for part in parts.iter().filter(|part| !(quick && **part == Part::Builds)) {
        let name = part.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        println!("== {name}");
        // Disks differ more than anything else here, and from one minute to the next.
        let mut figures = vec![machine::syncs()?];
        figures.extend(part.measure(quick)?);
        println!("\n{}\n", table(&figures));
        if !quick {
            report::keep(&name, &figures)?;
        }
        all.extend(figures);
    }
    if parts.len() > 1 {
        println!("== all\n\n{}", table(&all));
    }
    Ok(())
}

impl Part {
    fn measure(self, quick: bool) -> anyhow::Result<Vec<Figure>> {
        match self {
            Part::Starts => starts::measure(),
            Part::Saturation => saturation::measure(quick),
            Part::Visible => visible::measure(quick),
            Part::ServersVisible => visible::on_servers::measure(&Servers::up()?, quick),
            Part::ServersSaturation => postgres::measure(&Servers::up()?, quick),
            Part::Replay => replay::measure(quick),
            Part::Memory => memory::measure(quick),
            Part::Flat => flat::measure(quick),
            Part::Backlog => backlog::measure(&Servers::up()?, quick),
            Part::Builds => builds::measure(),
        }
    }
}

/// Says how far a long run is, at every million.
fn progress(what: &str, done: u64, all: u64) {
    if done.is_multiple_of(1_000_000) && done < all {
        println!("{what}: {done} of {all}");
    }
}

/// A quantile of microseconds, in milliseconds.
fn milliseconds(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1_000.0
}
