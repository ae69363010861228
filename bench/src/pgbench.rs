//! PostgreSQL's own `pgbench`, writing the rows that the account service writes.
//!
//! **Why it is a fair peer.** A script is one statement, and so one round trip and one transaction with one sync, that writes what the service's
//! writer commits for a batch of new accounts: as many rows of the same width in `accounts`, with its three indexes, and
//! in `outbox`, and the one row of `ledger`; in the tables that the service's own migrations have made, with sequences from the same
//! sequence and ids that rise as UUIDv7 does, so that the same pages stay warm. It is prepared, and it runs on one connection as
//! the one writer of an instance does, in batches of the size that the service reached the moment before.
//!
//! Where they differ it is to the peer's advantage: the server makes the rows, where the service sends them; there is no
//! round trip that draws sequences, no `NOTIFY`, no relay that reads the outbox, publishes it and empties it, and no HTTP. So
//! the ratio tells what all of that costs on a machine where both share the cores.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

/// A batch of new accounts as one statement. `:size` is how many.
const SCRIPT: &str = "\
WITH moment AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now
), drawn AS MATERIALIZED (
    SELECT nextval('account.account_sequence') AS sequence FROM generate_series(1, :size)
), created AS (
    INSERT INTO account.accounts
    SELECT sequence, lpad(to_hex(sequence), 32, '0')::uuid, 'John Doe', 'US', 'ACTIVE', 1, now, now FROM drawn, moment
    RETURNING sequence, id, created_at
), head AS (
    UPDATE account.ledger SET active = active + :size,
        last_outbox_sequence = greatest(last_outbox_sequence, (SELECT now FROM moment)) + :size
    RETURNING last_outbox_sequence - :size AS before
)
INSERT INTO account.outbox
SELECT head.before + row_number() OVER (), id, 'account.created', 'ACTIVE', 1, created_at,
    '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
FROM created, head;
";

/// `pgbench`, on one database that has the service's tables.
pub(crate) struct Pgbench {
    binary: PathBuf,
    script: tempfile::NamedTempFile,
    url: String,
}

impl Pgbench {
    pub(crate) fn new(url: String) -> anyhow::Result<Self> {
        let script = tempfile::NamedTempFile::new()?;
        fs::write(script.path(), SCRIPT)?;
        Ok(Pgbench { binary: binary(), script, url })
    }

    /// Rows of `accounts` that it commits a second, in batches of `size` by `clients` connections.
    pub(crate) fn rows_a_second(&self, size: u32, clients: u32, lasting: Duration) -> anyhow::Result<f64> {
        let mut command = Command::new(&self.binary);
        command.args(["--no-vacuum", "--protocol=prepared", "--file"]).arg(self.script.path());
        command.args([format!("--define=size={size}"), format!("--client={clients}")]);
        command.arg(format!("--time={}", lasting.as_secs())).arg(&self.url);
        let output = command.output().with_context(|| format!("cannot run {}", self.binary.display()))?;
        let (report, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "pgbench failed: {errors}");
        let rate = report.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse::<f64>().ok());
        Ok(rate.with_context(|| format!("pgbench tells no rate: {report}"))? * f64::from(size))
    }
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
