//! Filling the files of an all-in-one as its services would have, in a few minutes.
//!
//! The services make the empty files, with their own schema and keys. Rows then go there by SQL, in large transactions. Every
//! account has its last state in the embedded log, by the log's own publisher of the relay's name, with the position that the
//! outbox ends at: so the relay finds nothing to publish, and publishes nothing again. The log is compacted, and the card
//! closer's group stands at its end.

use std::path::Path;
use std::time::Duration;

use account_events::AccountStatus;
use anyhow::{Context, anyhow};
use event_log::{EmbeddedLog, EmbeddedSettings, EventLog, Record};
use rusqlite::{Connection, Transaction, params};
use test_harness::{Process, binary};

use crate::accounts::{MadeAccount, NUMBER_KEY, card_id};
use crate::progress;

/// Rows of one transaction.
const ROWS: u64 = 100_000;

/// Records of one batch.
const RECORDS: u64 = 10_000;

/// The account that has many cards.
pub(super) const HOLDER: u64 = 1;

/// So many: the last ones made. Each card before them is of the account with its own number.
pub(super) const HELD: u64 = 1_000;

/// Fills the files in `folder` with so many accounts, and as many cards.
pub(super) fn fill(folder: &Path, accounts: u64) -> anyhow::Result<()> {
    let mut tandem = Process::start(&binary("tandem"), folder, &[("DATA_DIR", ".")]);
    tandem.ready_service(account_service::NAME);
    tandem.ready_service(card_service::NAME);
    tandem.terminate();
    std::thread::scope(|scope| {
        let card_rows = scope.spawn(|| fill_cards(&folder.join("card.db"), accounts));
        let database_id = fill_accounts(&folder.join("account.db"), accounts)?;
        fill_log(&folder.join("event-log.db"), &database_id, accounts)?;
        card_rows.join().map_err(|_| anyhow!("filling cards panicked"))?
    })
}

/// Gives the database's id.
fn fill_accounts(path: &Path, accounts: u64) -> anyhow::Result<String> {
    let mut connection = connect(path)?;
    in_transactions("accounts", &mut connection, accounts, |transaction, numbers| {
        let mut insert =
            transaction.prepare_cached("INSERT INTO accounts VALUES (?, ?, 'John Doe', 'US', ?, ?, ?, ?)")?;
        for account in numbers.map(MadeAccount) {
            let (id, status, micros) = (account.id().0, account.status().as_str(), account.micros() as i64);
            insert.execute(params![account.0 as i64, id.as_bytes(), status, account.version(), micros, micros])?;
        }
        Ok(())
    })?;
    let last = MadeAccount(accounts).micros() as i64;
    connection.execute(
        "UPDATE ledger SET number_key = ?2, removed_outbox_sequence = ?1,
             blocked = (SELECT count(*) FROM accounts WHERE status = 'BLOCKED'),
             deleted = (SELECT count(*) FROM accounts WHERE status = 'DELETED')",
        params![last, NUMBER_KEY],
    )?;
    connection.execute_batch(
        "INSERT INTO active_blocks
         SELECT sequence / 64 AS block, sum(status <> 'ACTIVE') + (sequence / 64 = 0) AS inactive
         FROM accounts GROUP BY block HAVING inactive < 64",
    )?;
    let database_id = connection.query_row("SELECT database_id FROM ledger", [], |row| row.get(0))?;
    finish(connection)?;
    Ok(database_id)
}

fn fill_cards(path: &Path, cards: u64) -> anyhow::Result<()> {
    let mut connection = connect(path)?;
    in_transactions("cards", &mut connection, cards, |transaction, numbers| {
        let mut insert = transaction.prepare_cached("INSERT INTO cards VALUES (?, ?, 'US', ?, ?, ?)")?;
        let mut by_account = transaction.prepare_cached("INSERT INTO cards_by_account VALUES (?, ?, ?, ?)")?;
        for number in numbers {
            let own = number <= cards - HELD;
            let (of, own_account) = (MadeAccount(if own { number } else { HOLDER }), MadeAccount(number));
            let (id, micros) = (card_id(number), own_account.micros() as i64);
            let deleted = of.status() == AccountStatus::Deleted;
            insert.execute(params![number as i64, id.as_bytes(), of.id().0.as_bytes(), deleted, micros])?;
            let count = if number == HOLDER { 1 + HELD as i64 } else { i64::from(own) };
            let closed = own_account.status() == AccountStatus::Deleted;
            if count > 0 || closed {
                by_account.execute(params![own_account.id().0.as_bytes(), 0, count, closed])?;
            }
            let no_number = None::<i64>;
            by_account.execute(params![of.id().0.as_bytes(), number as i64, no_number, no_number])?;
        }
        Ok(())
    })?;
    connection.execute("UPDATE ledger SET number_key = ?", [NUMBER_KEY])?;
    finish(connection)
}

fn fill_log(path: &Path, database_id: &str, accounts: u64) -> anyhow::Result<()> {
    // Compacted once, at the end.
    let log =
        EmbeddedLog::open(EmbeddedSettings { compaction_min_records: u64::MAX / 4, ..EmbeddedSettings::at(path) })?;
    let mut publisher = log.publisher(&format!("{}-{database_id}", account_service::NAME))?;
    for numbers in pieces(accounts, RECORDS) {
        let last = MadeAccount(*numbers.end());
        let records: Vec<Record> = numbers.map(|number| MadeAccount(number).record()).collect();
        publisher.publish(&records, last.micros())?;
        progress("records", last.0, accounts);
    }
    drop(publisher);
    log.compact_now()?;
    let mut group = log.group_reader(card_service::DEFAULT_GROUP)?;
    while group.poll(Duration::ZERO, &mut |_| ())? > 0 {}
    group.commit().context("the group's position")
}

fn connect(path: &Path) -> anyhow::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "synchronous", "off")?;
    connection.pragma_update(None, "cache_size", -65_536)?;
    Ok(connection)
}

/// All of it goes to the main file.
fn finish(connection: Connection) -> anyhow::Result<()> {
    connection.pragma_update(None, "synchronous", "full")?;
    Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
}

fn in_transactions(
    what: &str,
    connection: &mut Connection,
    rows: u64,
    write: impl Fn(&Transaction<'_>, std::ops::RangeInclusive<u64>) -> rusqlite::Result<()>,
) -> anyhow::Result<()> {
    for numbers in pieces(rows, ROWS) {
        let last = *numbers.end();
        let transaction = connection.transaction()?;
        write(&transaction, numbers)?;
        transaction.commit()?;
        progress(what, last, rows);
    }
    Ok(())
}

/// 1 to `count` in pieces of `size`.
fn pieces(count: u64, size: u64) -> impl Iterator<Item = std::ops::RangeInclusive<u64>> {
    (0..count.div_ceil(size)).map(move |piece| piece * size + 1..=((piece + 1) * size).min(count))
}
