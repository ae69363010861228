//! Quarantine: records that tell of nothing are kept for a person to look at and counted, and the feed goes on.
//!
//! A record is known by its place in the log, so one that is read again is not there twice; another one in the same place,
//! of a topic that was made anew, takes over. They also stay in the log, so one that the database did not take is found
//! again at the next start.

use account_events::Unintelligible;
use event_log::RecordRef;

/// Records kept, at most: a producer that writes nothing else must not fill the disk. More are counted only.
pub(crate) const MAX_RECORDS: i64 = 10_000;

/// How much of a record's value is kept, in bytes.
const MAX_VALUE_BYTES: usize = 64 * 1_024;

/// How much of a record's headers is kept, in number.
const MAX_HEADERS: usize = 32;

/// A record with what is wrong with it.
#[derive(Debug)]
pub(crate) struct QuarantinedRecord {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) reason: Unintelligible,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    headers: Vec<(String, String)>,
}

impl QuarantinedRecord {
    pub(crate) fn new(record: RecordRef<'_>, reason: Unintelligible) -> Self {
        let cut = |bytes: &[u8]| bytes[..bytes.len().min(MAX_VALUE_BYTES)].to_vec();
        let text = |bytes: &[u8]| String::from_utf8_lossy(&cut(bytes)).into_owned();
        let header = |header: event_log::Header| (header.name, text(&header.value));
        QuarantinedRecord {
            partition: record.partition,
            offset: record.offset,
            reason,
            key: record.key.map(cut),
            value: record.value.map(cut),
            headers: record.headers.to_vec().into_iter().take(MAX_HEADERS).map(header).collect(),
        }
    }

    /// `[["name", "value"], ...]`
    pub(crate) fn headers_as_json(&self) -> String {
        // Pairs of strings: there is nothing in them that JSON cannot write.
        serde_json::to_string(&self.headers).unwrap_or_default()
    }
}
