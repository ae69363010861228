//! `cargo run --release -p bench`: what Tandem costs on the machine at hand, as a table beside the bounds it is held to.
//!
//! Nothing here fails by itself: a machine may be slow or busy, and whoever reads the table judges.

mod builds;
mod starts;
mod visible;

use clap::Parser;

/// Measures Tandem on this machine and prints a table.
#[derive(Parser)]
#[command(name = "bench")]
struct Options {
    /// Leave out the cold build and the test run, which take minutes
    #[arg(long)]
    quick: bool,
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
    let mut figures = Vec::new();
    if !options.quick {
        figures.push(builds::cold_build()?);
    }
    figures.extend(starts::measure()?);
    figures.extend(visible::measure()?);
    if !options.quick {
        figures.push(builds::test_run()?);
    }
    print(&figures);
    Ok(())
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
