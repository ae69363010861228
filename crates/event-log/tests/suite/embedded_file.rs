//! Helpers for tests of the embedded log's file: a folder for it, and all that a reader reads from it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use event_log::{EmbeddedLog, EmbeddedSettings, EventLog, LogError, Positions, Record};
use tempfile::TempDir;

use super::places::PATIENCE;

pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub(crate) fn file(&self, suffix: &str) -> PathBuf {
        self.0.path().join(format!("events.db{suffix}"))
    }

    pub(crate) fn open(&self) -> EmbeddedLog {
        self.try_open().unwrap()
    }

    pub(crate) fn try_open(&self) -> Result<EmbeddedLog, LogError> {
        EmbeddedLog::open(EmbeddedSettings::at(self.file("")))
    }
}

pub(crate) fn record(key: &str, value: impl Into<Vec<u8>>) -> Record {
    Record { key: Some(key.into()), value: Some(value.into()), ..Record::default() }
}

/// Records by partition and offset.
pub(crate) type Contents = BTreeMap<(u32, u64), Record>;

/// All records from the start to the end. Checks that they are in order.
pub(crate) fn try_read_all(log: &EmbeddedLog) -> Result<Contents, LogError> {
    let end = log.end_offsets(PATIENCE)?;
    let mut reader = log.reader(&Positions::new())?;
    let mut contents = Contents::new();
    let mut last: BTreeMap<u32, u64> = BTreeMap::new();
    let deadline = Instant::now() + PATIENCE;
    while reader.positions().iter().any(|(partition, position)| *position < end[partition]) {
        assert!(Instant::now() < deadline, "stuck at {:?} before {end:?}", reader.positions());
        reader.poll(Duration::from_millis(1), &mut |record| {
            assert!(last.insert(record.partition, record.offset).is_none_or(|last| last < record.offset));
            contents.insert((record.partition, record.offset), record.to_record());
        })?;
    }
    Ok(contents)
}

pub(crate) fn read_all(log: &EmbeddedLog) -> Contents {
    try_read_all(log).unwrap()
}
