//! The embedded event log: one SQLite file, for a deployment without Kafka.
//!
//! It has what the services rely on in Kafka: partitions chosen by key, stable offsets, positions of groups and publishers, fencing,
//! and compaction to the last record of a key.
//!
//! A publisher makes its records visible to the readers of the process before it commits and syncs them (decision 0004). Only what
//! outlives the process waits for the sync: [`GroupReader`] reads durable records, and a checkpoint takes
//! [`Reader::durable_positions`].
//!
//! - `publisher` and `shared`: appending, fencing, committing. `state`: what is in memory. `storage`, `chunk`, `writer`: the file.
//! - `reader` and `cursor`: reading. `compaction` and `maintenance`: keeping the file small.

mod chunk;
mod compaction;
mod cursor;
mod maintenance;
mod publisher;
mod reader;
mod shared;
mod state;
mod storage;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlite_file::FailStop;

use self::maintenance::Maintenance;
use self::publisher::EmbeddedPublisher;
use self::reader::{EmbeddedGroupReader, EmbeddedReader};
use self::shared::Shared;
use crate::{Committed, DEFAULT_PARTITION_COUNT, EventLog, GroupReader, LogError, Positions, Publisher, Reader};

/// The default of [`EmbeddedSettings::compaction_min_records`]: some 40 MB of account events. Kafka leaves up to 1 GB of a partition
/// uncompacted.
const DEFAULT_COMPACTION_MIN_RECORDS: u64 = 100_000;

/// Where and how an embedded log is kept.
#[derive(Debug, Clone)]
pub struct EmbeddedSettings {
    /// The database file. The log creates it, and its folder, for the owner alone. `-wal` and `-shm` files are beside the file while
    /// it is open.
    pub path: PathBuf,
    /// The number of partitions of a new log. An existing log keeps its own, since keys must keep their partitions.
    pub partition_count: u32,
    /// A partition is compacted when this many records are new since its last compaction, and at least as many as that left.
    pub compaction_min_records: u64,
}

impl EmbeddedSettings {
    /// The default settings for a log in the file at `path`.
    pub fn at(path: impl Into<PathBuf>) -> EmbeddedSettings {
        EmbeddedSettings {
            path: path.into(),
            partition_count: DEFAULT_PARTITION_COUNT,
            compaction_min_records: DEFAULT_COMPACTION_MIN_RECORDS,
        }
    }
}

/// An open embedded log. The file stays locked until the log and all its publishers and readers are dropped; the last one closes the
/// file, which then is complete without its write-ahead log.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    maintenance: Maintenance,
}

impl EmbeddedLog {
    /// Opens or creates the log. One process at a time can open it.
    pub fn open(settings: EmbeddedSettings) -> Result<EmbeddedLog, LogError> {
        let shared = Shared::open(&settings).map_err(|error| match error {
            // Errors at the start name the whole path. Later errors have the file's name, because clients may see them.
            LogError::Damaged(text) => LogError::Damaged(format!("{}: {text}", settings.path.display())),
            error => error,
        })?;
        let shared = Arc::new(shared);
        let maintenance = Maintenance::start(Arc::clone(&shared))?;
        Ok(EmbeddedLog { shared, maintenance })
    }

    /// The switch that ends the process when the log's storage fails.
    pub fn fail_stop(&self) -> FailStop {
        self.shared.file.fail_stop().clone()
    }

    /// Compacts every partition now, and returns free space to the file system.
    pub fn compact_now(&self) -> Result<(), LogError> {
        compaction::compact(&self.shared, &|| false, &|_| true)
    }
}

impl EventLog for EmbeddedLog {
    fn describe(&self) -> String {
        format!("embedded log in {}", self.shared.path.display())
    }

    fn publisher(&self, name: &str) -> Result<Box<dyn Publisher>, LogError> {
        Ok(Box::new(EmbeddedPublisher::open(Arc::clone(&self.shared), name)?))
    }

    fn committed(&self, name: &str, _timeout: Duration) -> Result<Option<Committed>, LogError> {
        Ok(self.shared.committed(name))
    }

    fn reader(&self, from: &Positions) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(EmbeddedReader::open(Arc::clone(&self.shared), from)?))
    }

    fn group_reader(&self, group: &str) -> Result<Box<dyn GroupReader>, LogError> {
        Ok(Box::new(EmbeddedGroupReader::open(Arc::clone(&self.shared), group)?))
    }

    fn end_offsets(&self, _timeout: Duration) -> Result<Positions, LogError> {
        Ok(self.shared.end_offsets())
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.maintenance.stop();
    }
}
