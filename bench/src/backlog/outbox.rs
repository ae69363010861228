//! An outbox full of events, written by SQL.

use std::path::Path;

use database::DatabaseUrl;
use rusqlite::{Connection, params};
use test_harness::with_postgres;

use crate::accounts::MadeAccount;

/// Rows of one statement on PostgreSQL.
const ROWS: u64 = 10_000;

/// Writes so many events to the outbox of a database that the service has made and nobody has open.
pub(super) fn fill(database: &DatabaseUrl, events: u64) -> anyhow::Result<()> {
    match database {
        DatabaseUrl::Sqlite(path) => fill_sqlite(path, events),
        DatabaseUrl::Postgres(url) => {
            fill_postgres(url, events);
            Ok(())
        }
    }
}

fn fill_sqlite(path: &Path, events: u64) -> anyhow::Result<()> {
    let mut connection = Connection::open(path)?;
    let transaction = connection.transaction()?;
    {
        // A row for each: nothing has brought them together in a transaction.
        let mut insert = transaction.prepare("INSERT INTO outbox VALUES (?, 1, ?, ?)")?;
        for account in (1..=events).map(MadeAccount) {
            let mut event = account.id().0.into_bytes().to_vec();
            event.extend_from_slice(&account.version().to_be_bytes());
            event.push(account.status() as u8);
            event.extend_from_slice(&u128::from(account.0).to_be_bytes());
            event.extend_from_slice(&account.0.to_be_bytes());
            event.push(0);
            insert.execute(params![account.micros() as i64, account.micros() as i64, event])?;
        }
    }
    transaction.commit()?;
    Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
}

fn fill_postgres(url: &str, events: u64) {
    let sql = "INSERT INTO account.outbox
               SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::text[], $5::bigint[], $1::bigint[], $6::text[])";
    with_postgres(url, async |client| {
        for first in (1..=events).step_by(ROWS as usize) {
            let accounts = || (first..(first + ROWS).min(events + 1)).map(MadeAccount);
            let sequences: Vec<_> = accounts().map(|account| account.micros() as i64).collect();
            let ids: Vec<_> = accounts().map(|account| account.id().0).collect();
            let types: Vec<_> = accounts().map(|account| account.event_type().as_str()).collect();
            let statuses: Vec<_> = accounts().map(|account| account.status().as_str()).collect();
            let versions: Vec<_> = accounts().map(|account| i64::from(account.version())).collect();
            let traces: Vec<_> = accounts().map(MadeAccount::traceparent).collect();
            client.execute(sql, &[&sequences, &ids, &types, &statuses, &versions, &traces]).await?;
        }
        let last = MadeAccount(events).micros() as i64;
        client.execute("UPDATE account.ledger SET last_outbox_sequence = $1", &[&last]).await?;
        // As it would have been analyzed while it grew.
        client.batch_execute("ANALYZE account.outbox; CHECKPOINT").await
    });
}
