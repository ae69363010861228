//! How long a developer waits for the compiler and for the tests.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};

use crate::figure::{Figure, Unit};

/// `cargo build --release` into an empty folder.
pub(crate) fn cold_build() -> anyhow::Result<Figure> {
    println!("building all of it into an empty folder, which takes minutes");
    let target = tempfile::tempdir()?;
    let seconds = cargo(&["build", "--release", "--locked"], Some(target.path()))?;
    Ok(Figure::new("cold cargo build --release, 2 cores", seconds, Unit::Seconds).at_most(300.0))
}

/// `cargo test --workspace`, built before.
pub(crate) fn test_run() -> anyhow::Result<Figure> {
    println!("running all tests");
    cargo(&["test", "--workspace", "--locked", "--no-run"], None)?;
    let seconds = cargo(&["test", "--workspace", "--locked", "--quiet"], None)?;
    Ok(Figure::new("cargo test --workspace, built", seconds, Unit::Seconds).at_most(180.0))
}

/// Builds the all-in-one with a `feature` that only the bench uses, and keeps a copy of it at `to`.
pub(crate) fn build_variant(feature: &str, to: &Path) -> anyhow::Result<()> {
    cargo(&["build", "--release", "--locked", "--package", "tandem", "--features", feature], None)?;
    fs::copy(test_harness::binary("tandem"), to).with_context(|| format!("cannot copy to {}", to.display()))?;
    Ok(())
}

/// Builds the binary that the package `package` is named after, beside this one.
pub(crate) fn build(package: &str) -> anyhow::Result<()> {
    cargo(&["build", "--release", "--locked", "--package", package], None).map(drop)
}

fn cargo(arguments: &[&str], target: Option<&Path>) -> anyhow::Result<f64> {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
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
