//! How long a developer waits for the compiler and for the tests, how large the binaries are, and what became of that since the
//! first version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};

use crate::figure::{Figure, Unit};
use crate::starts;

/// The workspace.
const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The last commit of the first version: both services on SQLite, both logs, and nothing of PostgreSQL yet. What came since was
/// to cost no more. It is built by the same compiler.
const FIRST_VERSION: &str = "5c7e45d";

/// What the table calls it.
pub(crate) const FIRST: &str = "the first version";

/// What is shipped, as cargo builds it: not stripped, with the line tables that a backtrace needs.
const BINARIES: [&str; 3] = ["tandem", account_service::NAME, card_service::NAME];

/// A version, built into an empty folder.
struct Built {
    target: tempfile::TempDir,
    seconds: f64,
}

pub(crate) fn measure() -> anyhow::Result<Vec<Figure>> {
    println!("building all of it into an empty folder, and the first version as well, twice each, which takes minutes");
    let tree = first_version()?;
    // Ours is the first and the last one: whoever comes first reads from disk what then is in memory.
    let (ours, first) = (Built::cold(Path::new(HERE))?, Built::cold(tree.path())?);
    let (first_again, ours_again) = (Built::cold(tree.path())?.seconds, Built::cold(Path::new(HERE))?.seconds);
    let [seconds, first_seconds] =
        [(ours.seconds, ours_again), (first.seconds, first_again)].map(|(a, b)| (a + b) / 2.0);
    let seconds = |what| Figure::new(what, seconds, Unit::Seconds);
    let mut figures = vec![
        seconds("cold cargo build --release, 2 cores").at_most(300.0),
        no_worse(seconds("  beside the first version"), first_seconds),
    ];
    for name in BINARIES {
        let mebibytes = |built: &Built| {
            let bytes = fs::metadata(built.binary(name)).with_context(|| format!("{name} was not built"))?.len();
            anyhow::Ok(bytes as f64 / (1_024.0 * 1_024.0))
        };
        let size = Figure::new(format!("size of {name}, not stripped"), mebibytes(&ours)?, Unit::Mebibytes);
        figures.push(no_worse(size, mebibytes(&first)?));
    }
    println!("starting both by turns");
    figures.extend(starts::compared(&ours.binary("tandem"), &first.binary("tandem"))?);
    figures.push(test_run()?);
    Ok(figures)
}

impl Built {
    /// `cargo build --release` in `tree`, which is of the all-in-one; then, without a clock, of the other two binaries.
    fn cold(tree: &Path) -> anyhow::Result<Self> {
        let target = tempfile::tempdir()?;
        let build = ["build", "--release", "--locked"];
        let seconds = cargo_in(tree, &build, Some(target.path()))?;
        let others = ["--package", account_service::NAME, "--package", card_service::NAME];
        cargo_in(tree, &[build.as_slice(), &others].concat(), Some(target.path()))?;
        Ok(Built { target, seconds })
    }

    fn binary(&self, name: &str) -> PathBuf {
        self.target.path().join("release").join(name)
    }
}

/// Held to what the first version had.
fn no_worse(figure: Figure, first: f64) -> Figure {
    figure.against(FIRST, first).at_most(1.0)
}

/// Its files, which git must have.
fn first_version() -> anyhow::Result<tempfile::TempDir> {
    let tree = tempfile::tempdir()?;
    let archive = tree.path().join("archive.tar");
    let mut git = Command::new("git");
    git.current_dir(HERE).args(["archive", "--output"]).arg(&archive).arg(FIRST_VERSION);
    ensure!(git.status()?.success(), "this clone has not all of the history: git fetch --unshallow");
    let mut tar = Command::new("tar");
    ensure!(tar.current_dir(tree.path()).arg("-xf").arg(&archive).status()?.success(), "tar failed");
    fs::remove_file(archive)?;
    Ok(tree)
}

/// `cargo test --workspace`, built before.
fn test_run() -> anyhow::Result<Figure> {
    println!("running all tests");
    cargo(&["test", "--workspace", "--locked", "--no-run"])?;
    let seconds = cargo(&["test", "--workspace", "--locked", "--quiet"])?;
    Ok(Figure::new("cargo test --workspace, built", seconds, Unit::Seconds).at_most(180.0))
}

/// Builds the all-in-one with a `feature` that only the bench uses, and keeps a copy of it at `to`.
pub(crate) fn build_variant(feature: &str, to: &Path) -> anyhow::Result<()> {
    cargo(&["build", "--release", "--locked", "--package", "tandem", "--features", feature])?;
    fs::copy(test_harness::binary("tandem"), to).with_context(|| format!("cannot copy to {}", to.display()))?;
    Ok(())
}

/// Builds the binary that the package `package` is named after, beside this one.
pub(crate) fn build(package: &str) -> anyhow::Result<()> {
    cargo(&["build", "--release", "--locked", "--package", package]).map(drop)
}

/// Seconds that it took in this workspace.
fn cargo(arguments: &[&str]) -> anyhow::Result<f64> {
    cargo_in(Path::new(HERE), arguments, None)
}

fn cargo_in(tree: &Path, arguments: &[&str], target: Option<&Path>) -> anyhow::Result<f64> {
    let mut command = Command::new(env!("CARGO"));
    // What this version sets for its own compilers is no business of another version's.
    command.args(arguments).current_dir(tree);
    for flags in ["CFLAGS", "CXXFLAGS", "HOST_CFLAGS", "TARGET_CFLAGS", "LIBSQLITE3_FLAGS"] {
        command.env_remove(flags);
    }
    if let Some(target) = target {
        command.env("CARGO_TARGET_DIR", target);
    }
    let started = Instant::now();
    let output = command.stdin(Stdio::null()).output().context("cannot start cargo")?;
    let seconds = started.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo {} failed:\n{text}", arguments.join(" "));
    Ok(seconds)
}
