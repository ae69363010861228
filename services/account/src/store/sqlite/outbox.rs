//! The relay's side of the outbox in the SQLite file. The writer adds and removes events. Only this instance publishes them.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use account_events::{AccountId, AccountStatus, LastEvent, Owner, TraceParent, Version};
use group_commit::StoreError;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use sqlite_file::{Durability, SharedConnection};
use uuid::Uuid;

use super::{COLUMNS, LAST_ACCOUNT, LAST_EVENT, account_from_row, invalid, timestamp};
use crate::account_number::AccountNumbering;
use crate::decide::{OutboxEvent, RecordBuffer, new_page_id};
use crate::lineage::Lineage;
use crate::outbox::recent_events::RecentEvents;
use crate::outbox::{AccountPage, NextEvents, Outbox, ResyncRequest, ResyncRequests};

/// The sessions that are kept. A log that names an older one is taken for another copy's.
const MAX_SESSIONS: i64 = 1_000;

/// How often the file is read for a resync request, which another process may write, and for the highest account.
const REQUEST_POLL: Duration = Duration::from_millis(500);

pub(super) struct SqliteOutbox {
    connection: SharedConnection,
    durability: Durability,
    numbering: AccountNumbering,
    recent: RecentEvents,
    published: PublishedPosition,
    requests_read_at: Option<Instant>,
    account_sequence_high: u64,
    records: RecordBuffer,
}

/// The position up to which the event log has acknowledged events. The relay advances it, and the writer removes the events with
/// a later commit, so that removal needs no sync of its own.
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
    /// `connection` reads the outbox, and writes only resync requests and that they are done.
    pub(super) fn new(
        connection: SharedConnection,
        durability: Durability,
        numbering: AccountNumbering,
        recent: RecentEvents,
        published: PublishedPosition,
    ) -> Self {
        let records = RecordBuffer::default();
        SqliteOutbox {
            connection,
            durability,
            numbering,
            recent,
            published,
            requests_read_at: None,
            account_sequence_high: 0,
            records,
        }
    }

    /// Reads the events for [`Outbox::read`] from the file.
    fn read_rows(&self, after: u64, up_to: u64, limit: usize) -> Result<(Vec<OutboxEvent>, u64), StoreError> {
        self.connection.run(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT last_sequence, occurred_at, events FROM outbox
                 WHERE last_sequence > ? AND last_sequence <= ? ORDER BY last_sequence",
            )?;
            let mut rows = statement.query(params![after as i64, up_to as i64])?;
            let (mut events, mut last) = (Vec::new(), after);
            while events.len() < limit
                && let Some(row) = rows.next()?
            {
                last = row.get::<_, i64>(0)? as u64;
                let json = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
                events.extend(events_from_json(json, timestamp(row, 1)?).ok_or_else(|| invalid(2, json))?);
            }
            Ok((events, last))
        })
    }
}

impl Outbox for SqliteOutbox {
    fn acquire_lease(&mut self) -> Result<bool, StoreError> {
        Ok(true)
    }

    fn lineage(&mut self, owner: Option<&Owner>, position: u64) -> Result<Lineage, StoreError> {
        let (session, last) = (owner.map(|owner| &owner.session), owner.and_then(|owner| owner.last_event));
        let id = last.map(|event| event.account_id.0);
        let sequence = id.map(|id| self.numbering.0.sequence_of_id(id) as i64);
        let sql = format!(
            "SELECT database_id, lower(hex(number_key)), EXISTS (SELECT 1 FROM publisher_sessions WHERE session = ?1),
                 EXISTS (SELECT 1 FROM accounts), coalesce(outbox_anchor, ({LAST_EVENT})), removed_outbox_sequence,
                 (SELECT event_version FROM accounts WHERE sequence = ?3 AND id = ?4 AND removed_outbox_sequence >= ?2)
             FROM ledger"
        );
        let lineage = self.connection.run(|connection| {
            let event_at_position = event_at(connection, position)?;
            connection.query_row(
                &sql,
                params![session, position as i64, sequence, id.as_ref().map(Uuid::as_bytes)],
                |row| {
                    Ok(Lineage {
                        database_id: row.get(0)?,
                        number_key: row.get(1)?,
                        knows_session: row.get(2)?,
                        has_accounts: row.get(3)?,
                        anchor: row.get::<_, i64>(4)? as u64,
                        removed: row.get::<_, i64>(5)? as u64,
                        event_at_position,
                        row_version: row.get(6)?,
                        set_back: None,
                    })
                },
            )
        })?;
        Ok(Lineage { removed: lineage.removed.max(self.published.get()), ..lineage })
    }

    fn add_session(&mut self, session: &str) -> Result<(), StoreError> {
        let sql = "INSERT INTO publisher_sessions (session) VALUES (?)";
        self.connection.run(|connection| connection.execute(sql, [session])).map(drop)
    }

    fn session_confirmed(&mut self) -> Result<(), StoreError> {
        self.connection.run(|connection| {
            let transaction = connection.unchecked_transaction()?;
            transaction.execute("UPDATE ledger SET outbox_anchor = NULL", [])?;
            // Not before: until now the log named an earlier session, however many attempts there were since.
            let sql = "DELETE FROM publisher_sessions WHERE number <= (SELECT max(number) FROM publisher_sessions) - ?";
            transaction.execute(sql, [MAX_SESSIONS])?;
            transaction.commit()
        })
    }

    fn account_sequence_high(&self) -> u64 {
        self.account_sequence_high
    }

    fn set_superseded(&mut self, reason: Option<&str>) -> Result<(), StoreError> {
        self.connection.run(|connection| connection.execute("UPDATE ledger SET superseded = ?", [reason]))?;
        Ok(())
    }

    fn superseded(&mut self) -> Result<Option<String>, StoreError> {
        self.connection.run(|connection| connection.query_row("SELECT superseded FROM ledger", [], |row| row.get(0)))
    }

    fn read(&mut self, after: u64, up_to: u64, limit: usize) -> Result<Option<NextEvents<'_>>, StoreError> {
        let batches = self.recent.take(after, up_to, limit);
        let next = match batches.last() {
            Some(last) => self.records.encode(batches.iter().flat_map(|batch| &batch.events), last.last_sequence),
            None => {
                let (events, last) = self.read_rows(after, up_to, limit)?;
                self.records.encode(&events, last)
            }
        };
        if next.is_some() {
            self.durability.wait_blocking()?;
        }
        Ok(next)
    }

    fn removed(&mut self) -> Result<u64, StoreError> {
        let sql = "SELECT removed_outbox_sequence FROM ledger";
        let removed = self.connection.run(|connection| connection.query_row(sql, [], |row| row.get::<_, i64>(0)))?;
        // Published events count as removed: the writer removes them later.
        Ok(self.published.get().max(removed as u64))
    }

    fn last(&mut self) -> Result<u64, StoreError> {
        Ok(self.connection.run(|connection| connection.query_row(LAST_EVENT, [], |row| row.get::<_, i64>(0)))? as u64)
    }

    fn waiting(&mut self, after: u64) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(sum(event_count), 0) FROM outbox WHERE last_sequence > ?";
        let count = |connection: &Connection| connection.query_row(sql, [after as i64], |row| row.get::<_, i64>(0));
        Ok(self.connection.run(count)? as u64)
    }

    /// Notes the position. The writer removes the events with its next transaction.
    fn remove_published(&mut self, position: u64) -> Result<(), StoreError> {
        self.published.advance(position);
        Ok(())
    }

    fn resync_requested(&mut self) -> Result<Option<ResyncRequest>, StoreError> {
        if self.requests_read_at.is_some_and(|at| at.elapsed() < REQUEST_POLL) {
            return Ok(None);
        }
        let (requests, high) = self.connection.run(|connection| {
            let high = connection.query_row(LAST_ACCOUNT, [], |row| row.get::<_, i64>(0))?;
            Ok((resync_requests(connection)?, high as u64))
        })?;
        (self.requests_read_at, self.account_sequence_high) = (Some(Instant::now()), high);
        Ok(requests.open())
    }

    fn request_resync(&mut self) -> Result<(), StoreError> {
        self.connection.run(request_resync)?;
        self.requests_read_at = None;
        Ok(())
    }

    fn accounts_after(&mut self, sequence: u64, limit: usize) -> Result<AccountPage, StoreError> {
        // One statement reads one snapshot.
        let sql =
            format!("SELECT {COLUMNS}, ({LAST_EVENT}) FROM accounts WHERE sequence > ? ORDER BY sequence LIMIT ?");
        let page = self.connection.run(|connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query(params![sequence as i64, limit as i64])?;
            let (mut page, page_id) = (AccountPage::default(), new_page_id());
            while let Some(row) = rows.next()? {
                page.last = row.get::<_, i64>(0)? as u64;
                page.head = row.get::<_, i64>(9)? as u64;
                page.records.push(OutboxEvent::of_state(&account_from_row(row, &self.numbering)?, page_id).record());
            }
            Ok(page)
        })?;
        self.durability.wait_blocking()?;
        Ok(page)
    }

    fn resync_done(&mut self, request: ResyncRequest) -> Result<(), StoreError> {
        let sql = "UPDATE ledger SET resync_done = max(resync_done, ?)";
        self.connection.run(|connection| connection.execute(sql, [request.0]))?;
        Ok(())
    }
}

/// An event in the JSON of a row.
#[derive(Serialize, Deserialize)]
struct StoredEvent<'a> {
    account_id: Uuid,
    version: Version,
    status: &'a str,
    traceparent: Cow<'a, str>,
}

/// The events of one transaction, as a row of the outbox stores them.
pub(super) fn events_to_json(events: &[OutboxEvent]) -> String {
    let stored: Vec<_> = events
        .iter()
        .map(|OutboxEvent { event, version, trace, .. }| StoredEvent {
            account_id: event.account_id.0,
            version: *version,
            status: event.status.as_str(),
            traceparent: Cow::Owned(trace.to_string()),
        })
        .collect();
    serde_json::to_string(&stored).unwrap_or_default() // text and numbers always serialise
}

/// `None` if the text is not what [`events_to_json`] writes.
fn events_from_json(json: &str, occurred_at: Timestamp) -> Option<Vec<OutboxEvent>> {
    let stored: Vec<StoredEvent<'_>> = serde_json::from_str(json).ok()?;
    let event = |stored: StoredEvent<'_>| {
        let status = AccountStatus::parse(stored.status)?;
        let trace = TraceParent::parse(&stored.traceparent)?;
        Some(OutboxEvent::new(AccountId(stored.account_id), stored.version, status, occurred_at, trace))
    };
    stored.into_iter().map(event).collect()
}

/// The event in the outbox with this sequence, if it is the last one of its transaction, as every event at a position is.
fn event_at(connection: &Connection, sequence: u64) -> rusqlite::Result<Option<LastEvent>> {
    let mut statement = connection.prepare_cached("SELECT occurred_at, events FROM outbox WHERE last_sequence = ?")?;
    let events = statement.query_row([sequence as i64], |row| {
        let json = row.get_ref(1)?.as_str()?;
        events_from_json(json, timestamp(row, 0)?).ok_or_else(|| invalid(1, json))
    });
    Ok(events.optional()?.and_then(|events| events.last().map(OutboxEvent::identity)))
}

/// Removes events in the open transaction of `connection`.
pub(super) fn remove_published(connection: &Connection, position: u64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM outbox WHERE last_sequence <= ?")?.execute([position as i64])?;
    let mut note =
        connection.prepare_cached("UPDATE ledger SET removed_outbox_sequence = max(removed_outbox_sequence, ?)")?;
    note.execute([position as i64])?;
    Ok(())
}

/// Adds a resync request.
pub(crate) fn request_resync(connection: &Connection) -> rusqlite::Result<ResyncRequest> {
    // The number counts only once the commit has succeeded.
    let transaction = connection.unchecked_transaction()?;
    transaction.execute("UPDATE ledger SET resync_requested = resync_requested + 1", [])?;
    let request = resync_requests(&transaction)?.requested;
    transaction.commit()?;
    Ok(ResyncRequest(request))
}

/// How many resyncs were requested, and how many are done.
pub(crate) fn resync_requests(connection: &Connection) -> rusqlite::Result<ResyncRequests> {
    let mut statement = connection.prepare_cached("SELECT resync_requested, resync_done FROM ledger")?;
    statement.query_row([], |row| Ok(ResyncRequests { requested: row.get(0)?, done: row.get(1)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: TraceParent = TraceParent { trace_id: 7 << 100 | 1, parent_id: 9 << 50, flags: 1 };

    fn event(id: u128, version: u32, status: AccountStatus) -> OutboxEvent {
        OutboxEvent::new(AccountId(Uuid::from_u128(id)), version, status, Timestamp::UNIX_EPOCH, TRACE)
    }

    #[test]
    fn a_row_reads_as_it_was_written_and_a_damaged_one_not_at_all() {
        let events = [
            event(7, 1, AccountStatus::Active),
            event(u128::MAX, u32::MAX, AccountStatus::Blocked),
            event(7, 3, AccountStatus::Deleted),
        ];
        let json = events_to_json(&events);
        assert!(json.starts_with(
            r#"[{"account_id":"00000000-0000-0000-0000-000000000007","version":1,"status":"ACTIVE","traceparent":"00-"#
        ));
        let read = events_from_json(&json, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(format!("{read:?}"), format!("{events:?}"));
        assert!(events_from_json(&json[1..], Timestamp::UNIX_EPOCH).is_none(), "cut short");
        assert!(events_from_json(&json.replace("ACTIVE", "active"), Timestamp::UNIX_EPOCH).is_none(), "no such status");
    }
}
