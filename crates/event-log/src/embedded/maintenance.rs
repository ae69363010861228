//! The maintenance thread: it compacts partitions and runs WAL checkpoints, so that no publisher does so inside a commit.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::compaction::{compact, is_due, wal_checkpoint};
use super::shared::Shared;
use super::storage::CHECKPOINT_BYTES;
use crate::LogError;

/// The pause after an error, which would recur with every commit. Meanwhile the log only takes more disk space.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(60);
/// The length at which the write-ahead log is truncated while publishers wait: readers have kept it from starting over.
const WAL_MAX_BYTES: u64 = 64 << 20;

/// What the maintenance thread is asked to do.
#[derive(Default)]
pub(super) struct Work {
    stop: bool,
    pub(super) compact: bool,
    /// Bytes written since the last WAL checkpoint, approximately.
    pub(super) wal_bytes: u64,
}

impl Work {
    fn checkpoint_is_due(&self) -> bool {
        self.wal_bytes >= CHECKPOINT_BYTES
    }

    pub(super) fn is_requested(&self) -> bool {
        self.compact || self.checkpoint_is_due()
    }
}

/// The running thread.
pub(super) struct Maintenance {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Maintenance {
    pub(super) fn start(shared: Arc<Shared>) -> Result<Maintenance, LogError> {
        // An earlier process may have stopped before it compacted.
        shared.work.lock().compact = true;
        let for_thread = Arc::clone(&shared);
        let thread = Builder::new()
            .name("event-log".to_owned())
            .spawn(move || run(&for_thread))
            .map_err(|error| LogError::Unavailable(format!("no thread for the event log: {error}")))?;
        Ok(Maintenance { shared, thread: Some(thread) })
    }

    /// Stops the thread after its current write transaction.
    pub(super) fn stop(&mut self) {
        self.shared.work.lock().stop = true;
        self.shared.work_requested.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the event log's maintenance thread panicked");
        }
    }
}

fn run(shared: &Shared) {
    loop {
        let mut work = shared.work.lock();
        shared.work_requested.wait_while(&mut work, |work| !work.stop && !work.is_requested());
        if work.stop {
            return;
        }
        let requested = std::mem::take(&mut *work);
        drop(work);
        if let Err(error) = perform(shared, &requested) {
            tracing::warn!(%error, "maintenance of the event log failed, the next attempt follows in {} s at the earliest", PAUSE_AFTER_ERROR.as_secs());
            shared.work_requested.wait_while_for(&mut shared.work.lock(), |work| !work.stop, PAUSE_AFTER_ERROR);
        }
    }
}

fn perform(shared: &Shared, requested: &Work) -> Result<(), LogError> {
    let due = |partition: &_| is_due(partition, shared.compaction_min_records);
    let any_due = requested.compact && shared.state.lock().partitions.iter().any(due);
    let compacted = if any_due { compact(shared, &|| shared.work.lock().stop, &due) } else { Ok(()) };
    // A compaction that succeeds ends with a WAL checkpoint.
    if requested.checkpoint_is_due() || compacted.is_err() {
        wal_checkpoint(shared, shared.file.wal_bytes() > WAL_MAX_BYTES)?;
    }
    compacted
}
