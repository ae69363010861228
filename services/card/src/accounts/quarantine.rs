//! Quarantine: records that tell of nothing are kept for a person to look at and counted, and the feed goes on.
//!
//! A record is known by its place in the log, so one that is read again is not there twice; another one in the same place,
//! of a topic that was made anew, takes over. They also stay in the log, so one that the database did not take is found
//! again at the next start.

use account_events::Unintelligible;
use event_log::{PassedOver, RecordRef};

use crate::http::error::CardError;
use crate::store::Store;

/// Records kept, at most: a producer that writes nothing else must not fill the disk. More are counted only.
pub(crate) const MAX_RECORDS: usize = 10_000;

/// Records that are kept with one command: as many as cards may have to wait for.
const KEPT_AT_ONCE: usize = 64;

/// How much of a record's value is kept, in bytes: far more than an event has.
const MAX_VALUE_BYTES: usize = 4 * 1_024;

/// How much of a record's key, of a header's name and of its value is kept, in bytes.
const MAX_SMALL_BYTES: usize = 256;

/// How many of a record's headers are kept.
const MAX_HEADERS: usize = 16;

/// The reason of a batch that the log could not decode: damaged, or compressed in an unknown way.
const UNREADABLE: &str = "unreadable_batch";

/// Takes records that are to be kept. Beyond what the database keeps it takes none.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    count: usize,
    records: Vec<QuarantinedRecord>,
}

impl Quarantine {
    /// Takes a record, if there is room for it.
    pub(crate) fn take(&mut self, record: RecordRef<'_>, reason: Unintelligible) {
        if self.count < MAX_RECORDS {
            self.count += 1;
            self.records.push(QuarantinedRecord::new(record, reason));
        }
    }

    /// Takes the place of records that the log could not decode, if there is room for it. Their bytes are unknown.
    pub(crate) fn take_passed_over(&mut self, batch: PassedOver) {
        if self.count < MAX_RECORDS {
            self.count += 1;
            let PassedOver { partition, offset, reason } = batch;
            let (code, headers) = (UNREADABLE, "[]".to_owned());
            let record = QuarantinedRecord { partition, offset, code, detail: reason, key: None, value: None, headers };
            self.records.push(record);
        }
    }

    /// What was taken since the last time.
    pub(crate) fn taken(&mut self) -> Vec<QuarantinedRecord> {
        std::mem::take(&mut self.records)
    }
}

/// Puts records into the database, a few at a time, so that cards are made in between. Those that it did not take stay in
/// `records`.
pub(crate) fn keep(records: &mut Vec<QuarantinedRecord>, store: &Store) -> Result<(), CardError> {
    while !records.is_empty() {
        let few = records.split_off(records.len().saturating_sub(KEPT_AT_ONCE));
        if let Err(error) = store.quarantine(few.clone()) {
            records.extend(few);
            return Err(error);
        }
    }
    Ok(())
}

/// A record with what is wrong with it.
#[derive(Debug, Clone)]
pub(crate) struct QuarantinedRecord {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    /// What is wrong, as a stable name.
    pub(crate) code: &'static str,
    /// What is wrong, for a person.
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
            // A reason quotes what it is about, which may be nearly all of the record.
            detail: text(reason.to_string().as_bytes()),
            key: record.key.map(small),
            value: record.value.map(|value| value[..value.len().min(MAX_VALUE_BYTES)].to_vec()),
            // Pairs of strings: there is nothing in them that JSON cannot write.
            headers: serde_json::to_string(&headers).unwrap_or_default(),
        }
    }
}
