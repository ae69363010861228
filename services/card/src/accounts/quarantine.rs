//! Quarantine: records that cannot be decoded are counted and stored in the card database for inspection, and the feed continues.
//!
//! A record is identified by its partition and offset, so reading it again stores it once. A different record at the same place,
//! of a re-created topic, replaces it. The records also stay in the log, so a restart finds those that were not stored.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use account_events::Unintelligible;
use event_log::{PassedOver, RecordRef};
use jiff::Timestamp;

/// The most records that are stored, so that a faulty producer cannot fill the disk. Further records are only counted.
pub(crate) const MAX_RECORDS: usize = 10_000;

/// The most records that one command stores. Card creations wait for the command.
pub(crate) const MAX_STORED_AT_ONCE: usize = 64;

/// The most bytes of a key or a value that are stored: far more than an event has.
pub(crate) const MAX_STORED_BYTES: usize = 4 * 1_024;

/// The most bytes of a detail, a header name or a header value that are stored.
const MAX_SMALL_BYTES: usize = 256;

/// The most headers that are stored.
const MAX_HEADERS: usize = 16;

/// The reason of a batch that the log could not decode: damaged, or compressed in an unknown way.
const UNREADABLE: &str = "unreadable_batch";

/// The number of records that were not stored since the start, because the quarantine was full. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dropped(Arc<AtomicU64>);

impl Dropped {
    pub(crate) fn add(&self, records: u64) {
        self.0.fetch_add(records, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Collects records for the quarantine, up to [`MAX_RECORDS`].
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    count: usize,
    records: Vec<QuarantinedRecord>,
    dropped: Dropped,
    /// The places that the database had at the start.
    stored: HashSet<Place>,
    /// Those of them whose records were decoded since.
    decoded: Vec<Place>,
}

impl Quarantine {
    /// An empty collection, which adds the records that it leaves out to `dropped`. The database has the places in `stored`.
    pub(crate) fn new(dropped: Dropped, stored: HashSet<Place>) -> Self {
        Quarantine { dropped, stored, ..Quarantine::default() }
    }

    /// Notes that the record at `place` was decoded, and so leaves the quarantine if it is there.
    pub(crate) fn note_decoded(&mut self, place: Place) {
        if !self.stored.is_empty() && self.stored.remove(&place) {
            self.decoded.push(place);
        }
    }

    /// Removes and returns the places in quarantine whose records were decoded.
    pub(crate) fn decoded(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.decoded)
    }

    /// Adds a record.
    pub(crate) fn take(&mut self, record: RecordRef<'_>, reason: Unintelligible) {
        self.add(|| QuarantinedRecord::new(record, reason));
    }

    /// Adds a batch that the log skipped because it could not decode it. Its bytes are unknown.
    pub(crate) fn take_passed_over(&mut self, PassedOver { partition, offset, reason }: PassedOver) {
        let (code, headers) = (UNREADABLE, "[]".to_owned());
        self.add(|| QuarantinedRecord { partition, offset, code, detail: reason, key: None, value: None, headers });
    }

    fn add(&mut self, record: impl FnOnce() -> QuarantinedRecord) {
        if self.count < MAX_RECORDS {
            self.count += 1;
            self.records.push(record());
        } else {
            self.dropped.add(1);
        }
    }

    /// Removes and returns the collected records.
    pub(crate) fn taken(&mut self) -> Vec<QuarantinedRecord> {
        std::mem::take(&mut self.records)
    }
}

/// A record and the reason why it cannot be decoded.
#[derive(Debug, Clone)]
pub(crate) struct QuarantinedRecord {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    /// What is wrong, as a stable name.
    pub(crate) code: &'static str,
    /// The reason as text.
    pub(crate) detail: String,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    /// `[["name", "value"], ...]`
    pub(crate) headers: String,
}

impl QuarantinedRecord {
    fn new(record: RecordRef<'_>, reason: Unintelligible) -> Self {
        let small = |bytes: &[u8]| bytes[..bytes.len().min(MAX_SMALL_BYTES)].to_vec();
        let large = |bytes: &[u8]| bytes[..bytes.len().min(MAX_STORED_BYTES)].to_vec();
        let text = |bytes: &[u8]| String::from_utf8_lossy(&small(bytes)).into_owned();
        let headers = record.headers.to_list();
        let headers = headers.iter().take(MAX_HEADERS).map(|(name, value)| (text(name.as_bytes()), text(value)));
        let headers: Vec<_> = headers.collect();
        QuarantinedRecord {
            partition: record.partition,
            offset: record.offset,
            code: reason.code(),
            // The text may quote nearly all of the record.
            detail: text(reason.to_string().as_bytes()),
            key: record.key.map(large),
            value: record.value.map(large),
            // Pairs of strings always serialise.
            headers: serde_json::to_string(&headers).unwrap_or_default(),
        }
    }
}

/// The place of a record: its partition and offset.
pub(crate) type Place = (u32, u64);

/// A record in quarantine, as the database has it.
#[derive(Debug)]
pub(crate) struct StoredRecord {
    pub(crate) place: Place,
    /// When the record was stored.
    pub(crate) timestamp: Timestamp,
    pub(crate) reason: String,
    pub(crate) detail: String,
    /// At most [`MAX_STORED_BYTES`] bytes, as the value.
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
}
