//! Quarantine: records that cannot be decoded are counted and stored in the card database for inspection, and the feed continues.
//!
//! A record is identified by its partition and offset, so reading it again stores it once. A different record at the same place,
//! of a re-created topic, replaces it. The records also stay in the log, so a restart finds those that were not stored.

use account_events::Unintelligible;
use event_log::{PassedOver, RecordRef};

/// The most records that are stored, so that a faulty producer cannot fill the disk. Further records are only counted.
pub(crate) const MAX_RECORDS: usize = 10_000;

/// The most records that one command stores. Card creations wait for the command.
pub(crate) const MAX_STORED_AT_ONCE: usize = 64;

/// The most bytes of a value that are stored: far more than an event has.
const MAX_VALUE_BYTES: usize = 4 * 1_024;

/// The most bytes of a key, a header name or a header value that are stored.
const MAX_SMALL_BYTES: usize = 256;

/// The most headers that are stored.
const MAX_HEADERS: usize = 16;

/// The reason of a batch that the log could not decode: damaged, or compressed in an unknown way.
const UNREADABLE: &str = "unreadable_batch";

/// Collects records for the quarantine, up to [`MAX_RECORDS`].
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    count: usize,
    records: Vec<QuarantinedRecord>,
}

impl Quarantine {
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
            key: record.key.map(small),
            value: record.value.map(|value| value[..value.len().min(MAX_VALUE_BYTES)].to_vec()),
            // Pairs of strings always serialise.
            headers: serde_json::to_string(&headers).unwrap_or_default(),
        }
    }
}
