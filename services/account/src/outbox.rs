//! The outbox: events committed with the row they tell of (design.md A1), kept until the event log has them (A4).
//!
//! Its sequence is the order of commit, because one writer numbers and commits the rows. A number is never used twice,
//! and it is at least the time of the commit in microseconds: should the database ever be put back to an older copy, its
//! new events still stand behind everything that the relay has published before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use account_events::{AccountEvent, AccountId, AccountStatus, Envelope, EventType, Version};
use event_log::Record;
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

use crate::account::Account;
use crate::store::timestamp;

/// Writes the event of `account`'s last change to the outbox, in the transaction that `connection` has open.
pub(crate) fn insert(
    connection: &Connection,
    sequence: u64,
    event_type: EventType,
    account: &Account,
    traceparent: &str,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?)")?;
    statement.execute(params![
        sequence as i64,
        account.id.0.as_bytes(),
        event_type.as_str(),
        account.status.as_str(),
        account.version,
        account.updated_at.as_microsecond(),
        traceparent,
    ])?;
    Ok(())
}

/// Removes everything up to and including `position`.
pub(crate) fn remove_published(connection: &Connection, position: u64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM outbox WHERE sequence <= ?")?.execute([position as i64])?;
    Ok(())
}

/// Up to `limit` events behind `position`, in order, as records, with the position of the last one.
pub(crate) fn read_after(connection: &Connection, position: u64, limit: usize) -> rusqlite::Result<(Vec<Record>, u64)> {
    let mut statement = connection.prepare_cached(
        "SELECT sequence, account_id, event_type, status, version, occurred_at, traceparent
         FROM outbox WHERE sequence > ? ORDER BY sequence LIMIT ?",
    )?;
    let mut rows = statement.query(params![position as i64, limit as i64])?;
    let (mut records, mut last) = (Vec::new(), position);
    while let Some(row) = rows.next()? {
        last = row.get::<_, i64>(0)? as u64;
        records.push(record(row)?);
    }
    Ok((records, last))
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let version: Version = row.get(4)?;
    let event = AccountEvent {
        event_type: parsed(row, 2, EventType::parse)?,
        account_id: AccountId(uuid::Uuid::from_bytes(row.get(1)?)),
        status: parsed(row, 3, AccountStatus::parse)?,
        version: Some(version),
    };
    let time: Timestamp = timestamp(row, 5)?;
    let traceparent = row.get_ref(6)?.as_str()?;
    Ok(Envelope { event, version, time: &time.to_string(), traceparent }.encode())
}

/// The text of a column, parsed; one that the parser does not know is an error that names the column.
pub(crate) fn parsed<T>(row: &Row<'_>, column: usize, parse: impl Fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    parse(text).ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, format!("unexpected value {text:?}").into())
    })
}

/// How far the event log has acknowledged the outbox: the relay moves it, the writer removes up to it when it commits
/// next, so that removal costs no sync of its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct PublishedPosition(Arc<AtomicU64>);

impl PublishedPosition {
    pub(crate) fn advance(&self, position: u64) {
        self.0.fetch_max(position, Ordering::Release);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Wakes the relay when events are committed. It holds one signal: more say nothing that the first does not.
#[derive(Clone)]
pub(crate) struct OutboxSignal(SyncSender<()>);

impl OutboxSignal {
    pub(crate) fn channel() -> (OutboxSignal, OutboxWait) {
        let (sender, receiver) = sync_channel(1);
        (OutboxSignal(sender), OutboxWait(receiver))
    }

    /// Says that the outbox may have more than before.
    pub(crate) fn notify(&self) {
        // A full channel already says it, a closed one has nobody left to tell.
        let _ = self.0.try_send(());
    }
}

/// The relay's end.
pub(crate) struct OutboxWait(Receiver<()>);

impl OutboxWait {
    /// Waits for a signal, at most `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) {
        match self.0.recv_timeout(timeout) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            // Nobody will signal any more: keep the pace of the fallback poll.
            Err(RecvTimeoutError::Disconnected) => std::thread::park_timeout(timeout),
        }
    }
}
