//! The embedded event log: one SQLite file in a folder, for a deployment without Kafka.
//!
//! It has what the services rely on in Kafka: partitions chosen by key, offsets that never change their record, positions
//! of groups and publishers, fencing, and compaction to the last record of a key.
//!
//! A publisher makes its records visible to the readers of the process first, and commits and syncs them then: all of
//! the process dies together, so a reader may run ahead of the sync, and two syncs in a row are not the latency of every
//! event. What outlives the process does not run ahead: [`GroupReader`] reads durable records only, and a checkpoint
//! takes [`Reader::durable_positions`].
//!
//! - `layout`, `chunk`, `storage` and `writer` are the file, `state` what is in memory, `shared` the two together.
//! - `cursor`, `reader` and `group_reader` read; `compaction` and `maintenance` keep the file small.

mod chunk;
mod compaction;
mod cursor;
mod group_reader;
mod layout;
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

use self::group_reader::EmbeddedGroupReader;
use self::maintenance::Maintenance;
use self::publisher::EmbeddedPublisher;
use self::reader::EmbeddedReader;
use self::shared::Shared;
use crate::{DEFAULT_PARTITION_COUNT, EventLog, GroupReader, LogError, Positions, Publisher, Reader};

/// From how many records on a partition's new part is worth compacting: below that it is some 40 MB of account events, and
/// Kafka leaves a partition's last segment alone up to 1 GB.
pub const DEFAULT_COMPACTION_MIN_RECORDS: u64 = 100_000;

/// Where and how an embedded log is kept.
#[derive(Debug, Clone)]
pub struct EmbeddedSettings {
    /// The database file, created for the owner alone, as its folder is. While it is open, `-wal` and `-shm` files are beside
    /// it.
    pub path: PathBuf,
    /// For a log that does not exist yet. One that does keeps its own count: keys must stay where they are.
    pub partition_count: u32,
    /// A partition is compacted when this many records are new since the last time, and they are at least as many as those
    /// that were left then, as Kafka does it (`min.cleanable.dirty.ratio`).
    pub compaction_min_records: u64,
}

impl EmbeddedSettings {
    /// A log in the file at `path`, the rest as it usually is.
    pub fn at(path: impl Into<PathBuf>) -> EmbeddedSettings {
        EmbeddedSettings {
            path: path.into(),
            partition_count: DEFAULT_PARTITION_COUNT,
            compaction_min_records: DEFAULT_COMPACTION_MIN_RECORDS,
        }
    }
}

/// An open embedded log. Publishers and readers may outlive it; its file stays locked until the last of them is gone, which
/// closes it: then the file is whole without its write-ahead log.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    maintenance: Maintenance,
}

impl EmbeddedLog {
    /// Opens the log, or makes it. One process at a time can have it open: a second one is refused.
    pub fn open(settings: EmbeddedSettings) -> Result<EmbeddedLog, LogError> {
        let shared = Shared::open(&settings).map_err(|error| match error {
            // The start names the whole path. Later errors may be shown to everyone.
            LogError::Damaged(text) => LogError::Damaged(format!("{}: {text}", settings.path.display())),
            error => error,
        })?;
        let shared = Arc::new(shared);
        let maintenance = Maintenance::start(Arc::clone(&shared))?;
        Ok(EmbeddedLog { shared, maintenance })
    }

    /// What ends the process when the storage of the log fails.
    pub fn fail_stop(&self) -> FailStop {
        self.shared.file.fail_stop().clone()
    }

    /// Compacts every partition now, however little there is to gain, and gives the space back to the file system.
    pub fn compact_now(&self) -> Result<(), LogError> {
        compaction::compact_all(&self.shared, &|| false)
    }
}

impl EventLog for EmbeddedLog {
    fn describe(&self) -> String {
        format!("embedded log in {}", self.shared.path.display())
    }

    fn publisher(&self, name: &str) -> Result<Box<dyn Publisher>, LogError> {
        Ok(Box::new(EmbeddedPublisher::open(Arc::clone(&self.shared), name)?))
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
