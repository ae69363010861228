//! The outbox of this instance alone: nobody else publishes from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use database::StoreError;
use database::sqlite::Durability;
use event_log::Record;
use rusqlite::{Connection, params};

use super::event_bytes::from_bytes;
use super::{COLUMNS, LAST_EVENT, account_from_row, invalid, timestamp};
use crate::account_number::AccountNumbering;
use crate::ledger::{OutboxEvent, RecordBuffer, TraceSpan};
use crate::outbox::{AccountPage, Outbox, ResyncRequest, ResyncRequests};
use crate::store::recent_events::RecentEvents;

/// How often it is looked whether someone has asked for the state of every account.
const REQUEST_POLL: Duration = Duration::from_millis(500);

pub(super) struct SqliteOutbox {
    connection: Connection,
    durability: Durability,
    numbering: AccountNumbering,
    recent: RecentEvents,
    published: PublishedPosition,
    requests_read_at: Option<Instant>,
    records: RecordBuffer,
}

/// How far the event log has acknowledged the outbox: the relay moves it, the writer removes up to it when it commits
/// next, so that removal costs no sync of its own.
#[derive(Debug, Clone, Default)]
pub(super) struct PublishedPosition(Arc<AtomicU64>);

impl PublishedPosition {
    fn advance(&self, position: u64) {
        self.0.fetch_max(position, Ordering::Release);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl SqliteOutbox {
    /// `connection` writes only what tells of requests for the state of every account, which come once in a long while.
    pub(super) fn new(
        connection: Connection,
        durability: Durability,
        numbering: AccountNumbering,
        recent: RecentEvents,
        published: PublishedPosition,
    ) -> Self {
        let records = RecordBuffer::default();
        SqliteOutbox { connection, durability, numbering, recent, published, requests_read_at: None, records }
    }

    /// The events that [`Outbox::read`] asks for, from the file.
    fn read_rows(&self, after: u64, up_to: u64, limit: usize) -> Result<(Vec<OutboxEvent>, u64), StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT last_sequence, occurred_at, events FROM outbox
             WHERE last_sequence > ? AND last_sequence <= ? ORDER BY last_sequence",
        )?;
        let mut rows = statement.query(params![after as i64, up_to as i64])?;
        let (mut events, mut last) = (Vec::new(), after);
        while events.len() < limit
            && let Some(row) = rows.next()?
        {
            last = row.get::<_, i64>(0)? as u64;
            let bytes = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
            events.extend(from_bytes(bytes, timestamp(row, 1)?).ok_or_else(|| invalid(2, bytes))?);
        }
        Ok((events, last))
    }
}

impl Outbox for SqliteOutbox {
    fn may_publish(&mut self) -> Result<bool, StoreError> {
        Ok(true)
    }

    fn read(&mut self, after: u64, up_to: u64, limit: usize) -> Result<(&[Record], u64), StoreError> {
        let batches = self.recent.take(after, up_to, limit);
        let (records, last) = match batches.last() {
            Some(last) => (self.records.encode(batches.iter().flat_map(|batch| &batch.events)), last.last),
            None => {
                let (events, last) = self.read_rows(after, up_to, limit)?;
                (self.records.encode(&events), last)
            }
        };
        if !records.is_empty() {
            self.durability.wait_blocking()?;
        }
        Ok((records, last))
    }

    fn removed(&mut self) -> Result<u64, StoreError> {
        let removed =
            self.connection.query_row("SELECT removed_outbox_sequence FROM ledger", [], |row| row.get::<_, i64>(0))?;
        // What is published will be removed, whatever becomes of this publisher.
        Ok(self.published.get().max(removed as u64))
    }

    fn last(&mut self) -> Result<u64, StoreError> {
        let last = self.connection.query_row(LAST_EVENT, [], |row| row.get::<_, i64>(0))?;
        Ok(last as u64)
    }

    fn waiting(&mut self) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(sum(event_count), 0) FROM outbox";
        Ok(self.connection.query_row(sql, [], |row| row.get::<_, i64>(0))? as u64)
    }

    /// The writer does it with its next transaction, so that removal costs no sync of its own.
    fn remove_published(&mut self, position: u64) -> Result<(), StoreError> {
        self.published.advance(position);
        Ok(())
    }

    fn resync_requested(&mut self) -> Result<Option<ResyncRequest>, StoreError> {
        if self.requests_read_at.is_some_and(|at| at.elapsed() < REQUEST_POLL) {
            return Ok(None);
        }
        let requests = resync_requests(&self.connection)?;
        self.requests_read_at = Some(Instant::now());
        Ok(requests.open())
    }

    fn request_resync(&mut self) -> Result<(), StoreError> {
        request_resync(&self.connection)?;
        self.requests_read_at = None;
        Ok(())
    }

    fn accounts_after(&mut self, sequence: u64, limit: usize) -> Result<AccountPage, StoreError> {
        // One statement, so all of it is of one moment.
        let sql =
            format!("SELECT {COLUMNS}, ({LAST_EVENT}) FROM accounts WHERE sequence > ? ORDER BY sequence LIMIT ?");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![sequence as i64, limit as i64])?;
        let (mut page, span) = (AccountPage::default(), TraceSpan::new());
        while let Some(row) = rows.next()? {
            page.last = row.get::<_, i64>(0)? as u64;
            page.head = row.get::<_, i64>(8)? as u64;
            page.records.push(OutboxEvent::of_state(&account_from_row(row, &self.numbering)?, span).record());
        }
        self.durability.wait_blocking()?;
        Ok(page)
    }

    fn resync_done(&mut self, request: ResyncRequest) -> Result<(), StoreError> {
        self.connection.execute("UPDATE ledger SET resync_done = max(resync_done, ?)", [request.0])?;
        Ok(())
    }
}

/// In one transaction: the one that `connection` has open.
pub(super) fn remove_published(connection: &Connection, position: u64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM outbox WHERE last_sequence <= ?")?.execute([position as i64])?;
    let mut note =
        connection.prepare_cached("UPDATE ledger SET removed_outbox_sequence = max(removed_outbox_sequence, ?)")?;
    note.execute([position as i64])?;
    Ok(())
}

/// Asks whoever publishes from this database to tell the event log the state of every account.
pub(crate) fn request_resync(connection: &Connection) -> rusqlite::Result<ResyncRequest> {
    // A transaction, since only its commit tells whether it has come to anything.
    let transaction = connection.unchecked_transaction()?;
    transaction.execute("UPDATE ledger SET resync_requested = resync_requested + 1", [])?;
    let request = resync_requests(&transaction)?.requested;
    transaction.commit()?;
    Ok(ResyncRequest(request))
}

/// What has been asked for, and what has been done.
pub(crate) fn resync_requests(connection: &Connection) -> rusqlite::Result<ResyncRequests> {
    let mut statement = connection.prepare_cached("SELECT resync_requested, resync_done FROM ledger")?;
    statement.query_row([], |row| Ok(ResyncRequests { requested: row.get(0)?, done: row.get(1)? }))
}

#[cfg(test)]
mod tests {
    use account_events::AccountEvent;
    use database::sqlite::{Schema, SqliteFile};
    use numbering::Numbering;

    use super::super::SCHEMA;
    use super::*;

    #[test]
    fn events_that_wait_in_an_older_outbox_are_published_by_this_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("account.db");
        let older = SqliteFile::open(&path, &Schema { migrations: &SCHEMA.migrations[..2], ..SCHEMA }).unwrap();
        let rows = [(5, 1, "account.created", "ACTIVE"), (6, 2, "account.status_changed", "BLOCKED")];
        for (sequence, version, event_type, status) in rows {
            let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            let row = params![sequence, [sequence as u8; 16], event_type, status, version, 1_000_000, trace];
            older.writer().unwrap().execute("INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?)", row).unwrap();
        }
        drop(older);
        let file = SqliteFile::open(&path, &SCHEMA).unwrap();
        let numbering = AccountNumbering(Numbering::decimal([0; 16]));
        let (recent, published) = (RecentEvents::default(), PublishedPosition::default());
        let (connection, durability) = file.group_writer().unwrap();
        let mut outbox = SqliteOutbox::new(connection, durability, numbering, recent, published);
        assert_eq!(outbox.waiting().unwrap(), 2);
        let (records, last) =
            outbox.read(0, u64::MAX >> 1, 100).map(|(records, last)| (records.to_vec(), last)).unwrap();
        let as_written = |record: &Record| {
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            let headers = record.headers.as_headers();
            AccountEvent::decode(event_log::RecordRef { partition: 0, offset: 0, key, value, headers }).unwrap()
        };
        let events: Vec<_> = records.iter().map(as_written).collect();
        assert_eq!(last, 6);
        for (event, (sequence, version, event_type, status)) in events.iter().zip(rows) {
            assert_eq!(event.account_id.0.as_bytes(), &[sequence as u8; 16]);
            assert_eq!((event.event_type.as_str(), event.status.as_str()), (event_type, status));
            assert_eq!(event.version, Some(version));
            assert_eq!(records[0].headers.get("ce_time"), Some(b"1970-01-01T00:00:01Z".as_slice()));
        }
        assert_eq!(
            (events.len(), outbox.read(5, 6, 100).unwrap().0.len(), outbox.read(5, 5, 100).unwrap().1),
            (2, 1, 5)
        );
    }
}
