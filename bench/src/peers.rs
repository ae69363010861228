//! What a user would have instead of Tandem: the same rows in the same database, written without it.

pub(crate) mod kafka;

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rusqlite::Connection;
use tempfile::TempDir;
use test_harness::{postgres_database, with_postgres};

/// Writes accounts (each with an event in an outbox) or cards, one transaction for each.
pub(crate) trait Peer {
    /// Its name in the table.
    fn name(&self) -> &'static str;

    /// Rows of `path` that it commits a second, each durably and by itself.
    fn rate(&self, path: &str, time: Duration) -> anyhow::Result<f64>;
}

/// SQLite from one thread, as durable as the services: each transaction is synced.
pub(crate) struct Sqlite {
    _folder: TempDir,
    connection: Connection,
    rows: Cell<u64>,
}

const SQLITE_TABLES: &str = "
    PRAGMA journal_mode = wal;
    PRAGMA synchronous = full;
    CREATE TABLE accounts (sequence INTEGER PRIMARY KEY, id BLOB UNIQUE, name TEXT, country TEXT, status TEXT, created_at INTEGER);
    CREATE TABLE outbox (sequence INTEGER PRIMARY KEY, account_id BLOB, type TEXT, status TEXT);
    CREATE TABLE cards (sequence INTEGER PRIMARY KEY, id BLOB UNIQUE, account_id BLOB, country TEXT, created_at INTEGER);
    CREATE INDEX cards_by_account ON cards (account_id);";

impl Sqlite {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let connection = Connection::open(folder.path().join("peer.db"))?;
        connection.execute_batch(SQLITE_TABLES)?;
        Ok(Sqlite { _folder: folder, connection, rows: Cell::new(0) })
    }

    fn insert(&self, path: &str) -> rusqlite::Result<()> {
        self.rows.set(self.rows.get() + 1);
        let id = kafka::account_id(self.rows.get()).into_bytes();
        if path != "/account" {
            let mut card = self
                .connection
                .prepare_cached("INSERT INTO cards VALUES (NULL, ?, zeroblob(16), 'US', unixepoch())")?;
            return card.execute([id]).map(drop);
        }
        let transaction = self.connection.unchecked_transaction()?;
        transaction
            .prepare_cached("INSERT INTO accounts VALUES (NULL, ?, 'John Doe', 'US', 'ACTIVE', unixepoch())")?
            .execute([id])?;
        transaction
            .prepare_cached("INSERT INTO outbox VALUES (NULL, ?, 'account.created', 'ACTIVE')")?
            .execute([id])?;
        transaction.commit()
    }
}

impl Peer for Sqlite {
    fn name(&self) -> &'static str {
        "SQLite, one by one"
    }

    fn rate(&self, path: &str, time: Duration) -> anyhow::Result<f64> {
        let (started, mut count) = (Instant::now(), 0_u32);
        while started.elapsed() < time {
            self.insert(path)?;
            count += 1;
        }
        Ok(f64::from(count) / started.elapsed().as_secs_f64())
    }
}

/// PostgreSQL with `pgbench`: 64 connections, a transaction for each row, no HTTP and no events.
pub(crate) struct Pgbench {
    folder: TempDir,
    url: String,
}

const PGBENCH_CLIENTS: u32 = 64;

const POSTGRES_TABLES: &str = "
    CREATE TABLE accounts (sequence bigserial PRIMARY KEY, id uuid UNIQUE, name text, country text, status text,
        created_at timestamptz DEFAULT now());
    CREATE TABLE outbox (sequence bigserial PRIMARY KEY, account_id uuid, type text, status text);
    CREATE TABLE cards (sequence bigserial PRIMARY KEY, id uuid UNIQUE, account_id uuid, country text,
        created_at timestamptz DEFAULT now());
    CREATE INDEX ON cards (account_id)";

const INSERT_ACCOUNT: &str = "\
WITH account AS (
    INSERT INTO accounts (id, name, country, status) VALUES (gen_random_uuid(), 'John Doe', 'US', 'ACTIVE') RETURNING id
)
INSERT INTO outbox (account_id, type, status) SELECT id, 'account.created', 'ACTIVE' FROM account;
";

const INSERT_CARD: &str = "\
INSERT INTO cards (id, account_id, country) VALUES (gen_random_uuid(), '00000000-0000-7000-8000-000000000000', 'US');
";

impl Pgbench {
    pub(crate) fn new(server: &str) -> anyhow::Result<Self> {
        let (folder, url) = (tempfile::tempdir()?, postgres_database(server));
        with_postgres(&url, async |client| client.batch_execute(POSTGRES_TABLES).await);
        Ok(Pgbench { folder, url })
    }
}

impl Peer for Pgbench {
    fn name(&self) -> &'static str {
        "pgbench, 64 connections"
    }

    fn rate(&self, path: &str, time: Duration) -> anyhow::Result<f64> {
        let script = self.folder.path().join("script.sql");
        fs::write(&script, if path == "/account" { INSERT_ACCOUNT } else { INSERT_CARD })?;
        let mut command = Command::new(pgbench());
        command.args(["--no-vacuum", "--protocol=prepared", "--file"]).arg(&script).arg(&self.url);
        command.arg(format!("--client={PGBENCH_CLIENTS}")).arg(format!("--time={}", time.as_secs()));
        let output = command.output().context("cannot run pgbench")?;
        let (report, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "pgbench failed: {errors}");
        let rate = report.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        rate.with_context(|| format!("pgbench reports no rate: {report}"))
    }
}

/// The newest version's program where Debian installs it, or else the one in `PATH`.
fn pgbench() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> = versions.map(|version| version.path()).collect();
    found.sort_by_key(|folder| folder.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
    let mut programs = found.into_iter().map(|folder| folder.join("bin/pgbench"));
    programs.rfind(|path| Path::is_file(path)).unwrap_or_else(|| PathBuf::from("pgbench"))
}
