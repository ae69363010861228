//! `cargo run --release -p bench`: measures the release binaries over HTTP, as a client sees them, and prints a table for each part.
//!
//! Each figure has beside it what the same machine does without Tandem, or, with `--before`, what other binaries do.

mod document;
mod exposed;
mod load;
mod machine;
mod peers;
mod replay;
mod results;
mod saturation;
mod scale;
mod servers;
mod starts;
mod system;
mod visible;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::peers::{Pgbench, Sqlite};
use crate::results::{Of, Results};
use crate::servers::Servers;
use crate::system::{Build, System};

/// The allocator of the services, because the load generator shares the cores with them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long accounts are created before the first measurement.
const WARM_UP: Duration = Duration::from_secs(1);
/// The same where Kafka is involved: a broker that has just started compiles its code, which slows everything beside it.
const BROKER_WARM_UP: Duration = Duration::from_secs(30);

/// Measures the release binaries on this machine, and prints a table for each part.
#[derive(Parser)]
#[command(name = "bench")]
struct Options {
    /// Compares with the binaries in this folder, by turns in the same run
    #[arg(long, value_name = "FOLDER", conflicts_with = "write")]
    before: Option<PathBuf>,

    /// Measures the binaries in this folder, and builds none
    #[arg(long, value_name = "FOLDER")]
    binaries: Option<PathBuf>,

    /// One round of each, and less data
    #[arg(long, conflicts_with = "write")]
    quick: bool,

    /// Writes the tables to docs/performance.md
    #[arg(long)]
    write: bool,

    /// What to measure; all of it if nothing is named
    parts: Vec<Part>,
}

/// What there is to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Accounts and cards a second, and their latency: SQLite and the embedded log
    Saturation,
    /// How soon a card can be created for a new account: SQLite and the embedded log
    Visible,
    /// Accounts a second with API keys, tokens and TLS, and an honest caller's latency beside others
    Exposed,
    /// Starts, and the memory of the idle process
    Starts,
    /// POST /card, starts, memory, disk and replay with ten million accounts and cards
    Scale,
    /// Accounts and cards a second, and their latency: PostgreSQL and Apache Kafka
    ServersSaturation,
    /// How soon a card can be created for a new account: PostgreSQL and Apache Kafka
    ServersVisible,
    /// How fast the card service reads ten million records from Apache Kafka
    ServersReplay,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut builds = vec![match &options.binaries {
        Some(folder) => Build::at(Of::Ours, folder)?,
        None => Build::checked_out()?,
    }];
    if let Some(folder) = &options.before {
        builds.push(Build::at(Of::Other("before"), folder)?);
    }
    let parts = if options.parts.is_empty() { Part::value_variants() } else { &options.parts };
    // Writing the document changes what is checked out.
    let commit = machine::commit();
    for part in parts {
        println!("\n== {}", part.name());
        let source = format!("Commit {commit}, {}.", machine::description()?);
        let results = part.measure(&builds, options.quick)?;
        println!("\n{}\n\n{source}", results.markdown());
        if options.write {
            document::write(&part.name(), &results, &source)?;
        }
    }
    Ok(())
}

impl Part {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn measure(self, builds: &[Build], quick: bool) -> anyhow::Result<Results> {
        match self {
            Part::Exposed => return exposed::measure(&builds[0], quick),
            Part::Starts => return starts::measure(builds, quick),
            Part::Scale => return scale::measure(builds, quick),
            Part::ServersReplay => return replay::measure(builds, &Servers::up()?, quick),
            Part::Saturation | Part::Visible | Part::ServersSaturation | Part::ServersVisible => {}
        }
        let servers = match self {
            Part::ServersSaturation | Part::ServersVisible => Some(Servers::up()?),
            _ => None,
        };
        let folders = builds.iter().map(|_| tempfile::tempdir()).collect::<Result<Vec<_>, _>>()?;
        let start = |(build, folder): (&Build, &tempfile::TempDir)| match &servers {
            Some(servers) => System::on_servers(build, folder.path(), servers),
            None => System::all_in_one(build, folder.path()),
        };
        let systems = builds.iter().zip(&folders).map(start).collect::<anyhow::Result<Vec<_>>>()?;
        // Where two builds are compared, the second one takes the place of what is beside the first.
        let alone = builds.len() == 1;
        let warm_up = if quick || servers.is_none() { WARM_UP } else { BROKER_WARM_UP };
        let results = match (self, &servers) {
            (Part::Saturation, _) => {
                let peer = Sqlite::new()?;
                saturation::measure(&systems, alone.then_some(&peer as _), warm_up, quick)
            }
            (Part::ServersSaturation, Some(servers)) => {
                let peer = Pgbench::new(&servers.postgres)?;
                saturation::measure(&systems, alone.then_some(&peer as _), warm_up, quick)
            }
            (Part::ServersVisible, servers) => {
                visible::on_servers(&systems, servers.as_ref().filter(|_| alone), warm_up, quick)
            }
            _ => visible::embedded(&systems, quick),
        }?;
        systems.into_iter().try_for_each(System::stop)?;
        Ok(results)
    }
}
