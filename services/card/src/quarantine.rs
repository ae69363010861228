//! Quarantine: records that tell of nothing are kept for a person to look at and counted, and the feed goes on.
//!
//! A record is known by its place in the log, so one that is read again is not there twice; another one in the same place,
//! of a topic that was made anew, takes over. They also stay in the log, so
//! one that the database did not take is found again at the next start.

use account_events::Unintelligible;
use event_log::RecordRef;
use jiff::Timestamp;
use rusqlite::{Connection, params};

/// Records kept, at most: a producer that writes nothing else must not fill the disk. More are counted only.
const MAX_RECORDS: i64 = 10_000;

/// How much of a record's value is kept, in bytes.
const MAX_VALUE_BYTES: usize = 64 * 1_024;

/// How much of a record's headers is kept, in number.
const MAX_HEADERS: usize = 32;

/// A record with what is wrong with it.
#[derive(Debug)]
pub(crate) struct QuarantinedRecord {
    partition: u32,
    offset: u64,
    reason: Unintelligible,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, String)>,
}

impl QuarantinedRecord {
    pub(crate) fn new(record: RecordRef<'_>, reason: Unintelligible) -> Self {
        let cut = |bytes: &[u8]| bytes[..bytes.len().min(MAX_VALUE_BYTES)].to_vec();
        let header =
            |header: event_log::Header| (header.name, String::from_utf8_lossy(&cut(&header.value)).into_owned());
        QuarantinedRecord {
            partition: record.partition,
            offset: record.offset,
            reason,
            key: record.key.map(cut),
            value: record.value.map(cut),
            headers: record.headers.to_vec().into_iter().take(MAX_HEADERS).map(header).collect(),
        }
    }
}

/// Keeps `record`, if there is room for it.
pub(crate) fn insert(connection: &Connection, record: &QuarantinedRecord, now: Timestamp) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO quarantine SELECT ?, ?, ?, ?, ?, ?, ?, ? WHERE (SELECT count(*) FROM quarantine) < ?
         ON CONFLICT DO UPDATE SET (reason, detail, key, value, headers, seen_at)
             = (excluded.reason, excluded.detail, excluded.key, excluded.value, excluded.headers, excluded.seen_at)
         WHERE value IS NOT excluded.value",
    )?;
    let headers = serde_json::to_string(&record.headers).unwrap_or_default();
    statement.execute(params![
        record.partition,
        record.offset as i64,
        record.reason.code(),
        record.reason.to_string(),
        record.key,
        record.value,
        headers,
        now.as_microsecond(),
        MAX_RECORDS,
    ])?;
    Ok(())
}
