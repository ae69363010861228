//! The quarantine: records of the event log that could not be decoded.

use std::collections::{BTreeSet, HashSet};

use group_commit::StoreError;
use http_server::Page;
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

use super::Reader;
use crate::accounts::quarantine::{MAX_RECORDS, Place, QuarantinedRecord, StoredRecord};

/// At most [`MAX_RECORDS`] rows are counted.
const COUNT: &str = "SELECT count(*) FROM quarantine";

const EXISTS: &str = "SELECT 1 FROM quarantine WHERE partition = ? AND record_offset = ?";

impl Reader {
    pub(in crate::store) async fn quarantined(
        &self,
        limit: usize,
        after: Option<Place>,
    ) -> Result<Page<StoredRecord>, StoreError> {
        self.pool.read(move |connection| page(connection, limit, after)).await
    }

    pub(in crate::store) async fn quarantined_places(&self) -> Result<HashSet<Place>, StoreError> {
        let places = self.pool.read(|connection| {
            let mut statement = connection.prepare("SELECT partition, record_offset FROM quarantine")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?;
            rows.collect()
        });
        places.await
    }

    pub(in crate::store) async fn is_quarantined(&self, (partition, offset): Place) -> Result<bool, StoreError> {
        self.pool
            .read(move |connection| connection.prepare_cached(EXISTS)?.exists(params![partition, offset as i64]))
            .await
    }
}

fn page(connection: &Connection, limit: usize, after: Option<Place>) -> rusqlite::Result<Page<StoredRecord>> {
    let (partition, offset) = after.map_or((-1, -1), |(partition, offset)| (i64::from(partition), offset as i64));
    let mut statement = connection.prepare_cached(
        "SELECT partition, record_offset, seen_at, reason, detail, key, value FROM quarantine
         WHERE (partition, record_offset) > (?, ?) ORDER BY partition, record_offset LIMIT ?",
    )?;
    // One more than requested shows whether more follow.
    let rows = statement.query_map(params![partition, offset, limit as i64 + 1], record)?;
    let rows = rows.collect::<rusqlite::Result<_>>()?;
    let total: i64 = connection.prepare_cached(COUNT)?.query_row([], |row| row.get(0))?;
    Ok(Page::new(rows, limit, total as u64))
}

fn record(row: &Row<'_>) -> rusqlite::Result<StoredRecord> {
    Ok(StoredRecord {
        place: (row.get(0)?, row.get::<_, i64>(1)? as u64),
        timestamp: Timestamp::from_microsecond(row.get(2)?)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(2, Type::Integer, error.into()))?,
        reason: row.get(3)?,
        detail: row.get(4)?,
        key: row.get(5)?,
        value: row.get(6)?,
    })
}

/// Removes the records at `places`.
pub(super) fn acknowledge(connection: &Connection, places: &BTreeSet<Place>) -> rusqlite::Result<()> {
    for (partition, offset) in places {
        let sql = "DELETE FROM quarantine WHERE partition = ? AND record_offset = ?";
        connection.prepare_cached(sql)?.execute(params![partition, *offset as i64])?;
    }
    Ok(())
}

/// Stores `records`, up to [`MAX_RECORDS`] in all, and returns how many found no room. A different record at a stored offset replaces
/// the stored one.
pub(super) fn quarantine(
    connection: &Connection,
    records: &[QuarantinedRecord],
    now: Timestamp,
) -> rusqlite::Result<u64> {
    if records.is_empty() {
        return Ok(0);
    }
    let stored: i64 = connection.query_row(COUNT, [], |row| row.get(0))?;
    let (mut room, mut dropped) = (MAX_RECORDS.saturating_sub(stored as usize), 0);
    let mut exists = connection.prepare_cached(EXISTS)?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO quarantine VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET (reason, detail, key, value, headers, seen_at)
             = (excluded.reason, excluded.detail, excluded.key, excluded.value, excluded.headers, excluded.seen_at)
         WHERE value IS NOT excluded.value",
    )?;
    for record in records {
        if !exists.exists(params![record.partition, record.offset as i64])? {
            if room == 0 {
                dropped += 1;
                continue;
            }
            room -= 1;
        }
        statement.execute(params![
            record.partition,
            record.offset as i64,
            record.code,
            record.detail,
            record.key,
            record.value,
            record.headers,
            now.as_microsecond(),
        ])?;
    }
    Ok(dropped)
}
