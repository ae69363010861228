//! The thread that keeps an embedded log small: it compacts, and moves the write-ahead log to the main file, so that no
//! publisher does either inside its commit.

use std::sync::{Arc, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::compaction::{checkpoint, compact_due};
use super::shared::{Shared, Work, locked};
use crate::LogError;

/// How long the thread rests after an error. The same error would come back with every commit, and nothing is lost
/// meanwhile but disk space.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(60);
/// A write-ahead log of this length was never at rest long enough to start over, and is cut with publishers held up.
const WAL_MAX_BYTES: u64 = 64 << 20;

/// The running thread.
pub(super) struct Maintenance {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Maintenance {
    pub(super) fn start(shared: Arc<Shared>) -> Result<Maintenance, LogError> {
        // What an earlier process left to do is looked at once.
        locked(&shared.work).compact = true;
        let for_thread = Arc::clone(&shared);
        let thread = Builder::new()
            .name("event-log".to_owned())
            .spawn(move || run(&for_thread))
            .map_err(|error| LogError::Unavailable(format!("no thread for the event log: {error}")))?;
        Ok(Maintenance { shared, thread: Some(thread) })
    }

    /// Ends the thread, after the small step it is at.
    pub(super) fn stop(&mut self) {
        locked(&self.shared.work).stop = true;
        self.shared.work_wanted.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the event log's maintenance thread had panicked");
        }
    }
}

fn run(shared: &Shared) {
    let mut rest_until: Option<Instant> = None;
    loop {
        let mut work = locked(&shared.work);
        loop {
            if work.stop {
                return;
            }
            let rest = rest_until.and_then(|until| until.checked_duration_since(Instant::now()));
            if let Some(rest) = rest.filter(|rest| !rest.is_zero()) {
                work = shared.work_wanted.wait_timeout(work, rest).unwrap_or_else(PoisonError::into_inner).0;
            } else if work.compact || work.checkpoint_is_due() {
                break;
            } else {
                work = shared.work_wanted.wait(work).unwrap_or_else(PoisonError::into_inner);
            }
        }
        let asked = std::mem::take(&mut *work);
        drop(work);
        if let Err(error) = work_once(shared, &asked) {
            tracing::warn!(%error, "the event log was not compacted; it only takes more disk space");
            rest_until = Instant::now().checked_add(PAUSE_AFTER_ERROR);
        }
    }
}

fn work_once(shared: &Shared, asked: &Work) -> Result<(), LogError> {
    let any_due = || locked(&shared.state).partitions.iter().any(|partition| shared.wants_compaction(partition));
    let compacted = match asked.compact && any_due() {
        true => compact_due(shared, &|| locked(&shared.work).stop),
        false => Ok(()),
    };
    // Compaction ends with it, unless it failed.
    if asked.checkpoint_is_due() || compacted.is_err() {
        checkpoint(shared, shared.file.wal_bytes() > WAL_MAX_BYTES)?;
    }
    compacted
}
