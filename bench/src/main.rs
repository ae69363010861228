//! `cargo run --release -p bench`: what Tandem costs on the machine at hand, as a table beside the bounds it is held to.
//! `cargo run --release -p bench -- servers`: the same of the services on Apache Kafka and PostgreSQL.
//!
//! Nothing here fails by itself: a machine may be slow or busy, and whoever reads the table judges.

mod builds;
mod load;
mod machine;
mod peers;
mod pgbench;
mod postgres;
mod servers;
mod starts;
mod visible;

use clap::{Parser, Subcommand};
use hdrhistogram::Histogram;

/// What every account is made of: the flow's own.
const ACCOUNT: &str = r#"{"beholder_name":"John Doe","country_code":"US"}"#;

/// Measures Tandem on this machine and prints a table.
#[derive(Parser)]
#[command(name = "bench", args_conflicts_with_subcommands = true)]
struct Options {
    /// Leave out the cold build and the test run, which take minutes
    #[arg(long)]
    quick: bool,

    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// The services on Apache Kafka and PostgreSQL, which dev/servers starts: from a commit to the view, and how many
    /// accounts a second; takes about five minutes
    Servers {
        /// Only these
        part: Option<servers::Part>,
    },
}

/// A line of the table.
struct Figure {
    what: String,
    value: String,
    bound: &'static str,
}

impl Figure {
    fn new(what: impl Into<String>, value: impl Into<String>, bound: &'static str) -> Self {
        Figure { what: what.into(), value: value.into(), bound }
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut figures = vec![machine::syncs()?];
    figures.extend(match options.what {
        Some(What::Servers { part }) => servers::measure(part)?,
        None => all_in_one(options.quick)?,
    });
    print(&figures);
    Ok(())
}

fn all_in_one(quick: bool) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    if !quick {
        figures.push(builds::cold_build()?);
    }
    figures.extend(starts::measure()?);
    figures.extend(visible::measure()?);
    if !quick {
        figures.push(builds::test_run()?);
    }
    Ok(figures)
}

/// A quantile of microseconds, as the table shows it.
fn at_quantile(histogram: &Histogram<u64>, quantile: f64) -> String {
    format!("{:.2} ms", histogram.value_at_quantile(quantile) as f64 / 1_000.0)
}

/// The middle one, or the upper of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print(figures: &[Figure]) {
    let width =
        |text: fn(&Figure) -> &str| figures.iter().map(|figure| text(figure).chars().count()).max().unwrap_or(0);
    let (what, value) = (width(|figure| &figure.what), width(|figure| &figure.value));
    println!();
    for figure in figures {
        println!("{:what$}  {:>value$}  {}", figure.what, figure.value, figure.bound);
    }
}
