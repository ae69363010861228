//! PostgreSQL's own `pgbench`, writing the rows that the services write.
//!
//! **Why it is a fair peer.** A script is one statement, and so one round trip and one transaction with one sync, that writes what a
//! service's writer commits for a batch of new accounts or cards: as many rows of the same width in the same tables with their
//! indexes, and the same one row of `ledger`; for accounts their rows in `outbox`, for cards the one row of the account that
//! all of them are of. The tables are those that the services' own migrations have made, with sequences from the same sequence and ids
//! that rise as UUIDv7 does, so that the same pages stay warm. It is prepared, and it runs on one connection as the one writer of
//! an instance does, in batches of the size that the service reached the moment before.
//!
//! Where they differ it is to the peer's advantage: the server makes the rows, where the service sends them; there is no
//! relay that publishes the outbox and empties it, and no HTTP. So the ratio tells what all of that costs on a machine where both
//! share the cores.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use test_harness::postgres_database;

mod rows;

pub(crate) use self::rows::{Rows, one_row};
use crate::servers::Servers;
use crate::turns::median;

/// `pgbench`, on one database of its own that has the services' tables.
pub(crate) struct Pgbench {
    binary: PathBuf,
    folder: tempfile::TempDir,
    url: String,
}

impl Pgbench {
    pub(crate) fn new(servers: &Servers) -> anyhow::Result<Self> {
        let (folder, url) = (tempfile::tempdir()?, postgres_database(&servers.postgres));
        rows::make_tables(&url)?;
        Ok(Pgbench { binary: binary(), folder, url })
    }

    /// Rows that it commits a second, in batches of `size` by `clients` connections.
    pub(crate) fn rows_a_second(&self, rows: Rows, size: u32, clients: u32, lasting: Duration) -> anyhow::Result<f64> {
        let report = self.run(rows, size, lasting, &[format!("--client={clients}")])?;
        let rate = report.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse::<f64>().ok());
        Ok(rate.with_context(|| format!("pgbench tells no rate: {report}"))? * f64::from(size))
    }

    /// The median of how long a batch of `size` takes from when it is sent, in milliseconds, at so many a second.
    pub(crate) fn median_commit(&self, rows: Rows, size: u32, rate: u32, lasting: Duration) -> anyhow::Result<f64> {
        let prefix = self.folder.path().join("commits");
        let options = [format!("--rate={rate}"), "--log".to_owned(), format!("--log-prefix={}", prefix.display())];
        self.run(rows, size, lasting, &options)?;
        let mut took = Vec::new();
        for file in fs::read_dir(self.folder.path())? {
            let path = file?.path();
            if path.to_string_lossy().starts_with(&*prefix.to_string_lossy()) {
                let log = fs::read_to_string(&path)?;
                took.extend(log.lines().filter_map(milliseconds_of));
                fs::remove_file(path)?;
            }
        }
        ensure!(!took.is_empty(), "pgbench has logged no transaction");
        Ok(median(took))
    }

    /// What it reports.
    fn run(&self, rows: Rows, size: u32, lasting: Duration, options: &[String]) -> anyhow::Result<String> {
        let script = self.folder.path().join("script.sql");
        fs::write(&script, rows.script())?;
        let mut command = Command::new(&self.binary);
        command.args(["--no-vacuum", "--protocol=prepared", "--file"]).arg(&script);
        command.arg(format!("--define=size={size}")).arg(format!("--time={}", lasting.as_secs())).args(options);
        let output =
            command.arg(&self.url).output().with_context(|| format!("cannot run {}", self.binary.display()))?;
        let (report, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "pgbench failed: {errors}");
        Ok(report.into_owned())
    }
}

/// Of a line of its log, which gives microseconds: client, transaction, time from when it was due, script, two of the
/// moment, and how late it was sent.
fn milliseconds_of(line: &str) -> Option<f64> {
    let fields: Vec<_> = line.split(' ').collect();
    let micros = |field: usize| fields.get(field)?.parse::<f64>().ok();
    Some((micros(2)? - micros(6)?) / 1_000.0)
}

/// Where `dev/servers` finds the server's own programs; else wherever the system does.
fn binary() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    folders.push(PathBuf::from("/usr/local/pgsql/bin"));
    let version = |folder: &PathBuf| -> Option<u32> { folder.parent()?.file_name()?.to_str()?.parse().ok() };
    folders.sort_by_key(version);
    let found = folders.into_iter().map(|folder| folder.join("pgbench")).rfind(|path| Path::is_file(path));
    found.unwrap_or_else(|| PathBuf::from("pgbench"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_takes_from_when_it_was_sent() {
        assert_eq!(milliseconds_of("0 199 2241 0 1175850568 995598 241"), Some(2.0));
        assert_eq!(milliseconds_of("0 199 skipped 0 1175850568 995598 241"), None);
    }
}
