//! What the accounts take on the disk, and what changes leave behind.

use std::path::Path;

use anyhow::ensure;
use event_log::{EmbeddedLog, EmbeddedSettings};
use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use test_harness::{Http, Process, at_once, wait_until};

use crate::accounts::MadeAccount;
use crate::figure::{Figure, Unit};

/// Accounts that change again and again. Those whose number ends in 1 are active.
const CHANGING: usize = 64;

/// Bytes an account, of each file.
pub(super) fn disk(folder: &Path, accounts: u64) -> anyhow::Result<Vec<Figure>> {
    let files = [("accounts", "account.db"), ("cards", "card.db"), ("the log, compacted", "event-log.db")];
    let figure = |(what, file): (&str, &str)| {
        let bytes = size(folder, file)? as f64 / accounts as f64;
        Ok(Figure::new(format!("disk an account, {what}, {accounts} accounts and cards"), bytes, Unit::Bytes))
    };
    files.into_iter().map(figure).collect()
}

/// Of a database with what stands beside it.
fn size(folder: &Path, file: &str) -> anyhow::Result<u64> {
    let beside = std::fs::metadata(folder.join(format!("{file}-wal"))).map_or(0, |metadata| metadata.len());
    Ok(std::fs::metadata(folder.join(file))?.len() + beside)
}

/// Changes a few of the accounts so many times altogether, ends the service, and compacts the log.
pub(super) fn changes(
    mut tandem: Process,
    folder: &Path,
    accounts: u64,
    changes: usize,
) -> anyhow::Result<Vec<Figure>> {
    println!("{changes} changes of status on {CHANGING} accounts");
    let (records_before, bytes_before) = (records(folder)?, size(folder, "event-log.db")?);
    let service = tandem.ready_service(account_service::NAME);
    let most = at_once(CHANGING, &service, |thread, http| change(thread, http, folder, changes / CHANGING));
    let most = most.into_iter().collect::<anyhow::Result<Vec<_>>>()?.into_iter().max().unwrap_or_default();
    wait_until("the outbox is empty", || outbox(folder).is_ok_and(|events| events == 0).then_some(()));
    tandem.terminate();
    let (records_running, bytes_running) = (records(folder)?, size(folder, "event-log.db")?);
    let log = EmbeddedLog::open(EmbeddedSettings::at(folder.join("event-log.db")))?;
    log.compact_now()?;
    drop(log);
    let records = records(folder)?;
    ensure!(records >= accounts, "the log holds {records} records, and there are {accounts} accounts");
    let bytes = size(folder, "event-log.db")?;
    let name = |what: &str| format!("{what}, {changes} changes on {CHANGING} of {accounts} accounts");
    Ok(vec![
        Figure::new(name("outbox events after"), outbox(folder)? as f64, Unit::Count).at_most(0.0),
        Figure::new("  at most while they were made", most as f64, Unit::Count),
        Figure::new(name("log records after compaction"), records as f64, Unit::Count)
            .against("before the changes", records_before as f64)
            .at_most(1.0),
        Figure::new("  as the service left it", records_running as f64, Unit::Count),
        Figure::new(name("log bytes after compaction"), bytes as f64, Unit::Bytes)
            .against("before the changes", bytes_before as f64),
        Figure::new("  as the service left it", bytes_running as f64, Unit::Bytes),
    ])
}

/// Blocks and unblocks an account of the thread's own. Gives the most events that were seen in the outbox.
fn change(thread: usize, http: &Http, folder: &Path, changes: usize) -> anyhow::Result<u64> {
    let path = format!("/account?id={}", MadeAccount(thread as u64 * 10 + 1).id());
    let mut most = 0;
    for number in 0..changes {
        let status = if number % 2 == 0 { "BLOCKED" } else { "ACTIVE" };
        let answer = http.send_json("PATCH", &path, &json!({"status": status}));
        ensure!(answer.status == 200, "a change was answered {}", answer.raw);
        if thread == 0 && number % 10 == 0 {
            most = most.max(outbox(folder)?);
        }
    }
    Ok(most)
}

fn outbox(folder: &Path) -> anyhow::Result<u64> {
    count(&folder.join("account.db"), "SELECT coalesce(sum(event_count), 0) FROM outbox")
}

fn records(folder: &Path) -> anyhow::Result<u64> {
    let sql = "SELECT sum(record_count) FROM (SELECT record_count FROM chunks_0
               UNION ALL SELECT record_count FROM chunks_1 UNION ALL SELECT record_count FROM chunks_2)";
    count(&folder.join("event-log.db"), sql)
}

fn count(path: &Path, sql: &str) -> anyhow::Result<u64> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(connection.query_row(sql, [], |row| row.get::<_, i64>(0))? as u64)
}
