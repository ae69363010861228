//! The embedded log's publisher.
//!
//! Fencing: opening a publisher increments the epoch of its name, and the log refuses appends of an earlier epoch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shared::Shared;
use crate::{Committed, LogError, Publisher, Record, spent_publisher};

/// How long a commit may be deferred, so that several batches share its sync. Only what outlives the process waits for a commit.
/// The value is that of Kafka; 50 ms cost the relay 5 to 10 % more.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct EmbeddedPublisher {
    shared: Arc<Shared>,
    name: Arc<str>,
    epoch: u64,
    position: Option<u64>,
    /// Stored with the next commit.
    note: Arc<str>,
    /// Batches that readers see and that are not in the file yet.
    open: Option<Open>,
    /// Set when a commit failed. The next commit will write its records, so this publisher must not publish them again.
    spent: bool,
}

/// The batches that were appended since the last commit.
struct Open {
    since: Instant,
    /// The number of the last batch.
    batch: u64,
    position: u64,
}

impl EmbeddedPublisher {
    pub(super) fn open(shared: Arc<Shared>, name: &str) -> Result<EmbeddedPublisher, LogError> {
        let name = Arc::from(name);
        let (epoch, committed) = shared.open_publisher(&name)?;
        let (position, note) = match committed {
            Some(Committed { position, note }) => (Some(position), note),
            None => (None, String::new()),
        };
        Ok(EmbeddedPublisher { shared, name, epoch, position, note: Arc::from(note), open: None, spent: false })
    }

    fn check_usable(&self) -> Result<(), LogError> {
        if self.spent { Err(spent_publisher()) } else { Ok(()) }
    }
}

impl Publisher for EmbeddedPublisher {
    fn position(&self) -> Option<u64> {
        self.position
    }

    fn note(&self) -> &str {
        &self.note
    }

    fn set_note(&mut self, note: String) {
        self.note = Arc::from(note);
    }

    fn append(&mut self, records: &[Record], position: u64) -> Result<(), LogError> {
        self.check_usable()?;
        let batch = self.shared.append(&self.name, self.epoch, records, (position, &self.note))?;
        let since = self.open.as_ref().map_or_else(Instant::now, |open| open.since);
        self.open = Some(Open { since, batch, position });
        match self.commit_due() {
            Some(Duration::ZERO) => self.commit(),
            _ => Ok(()),
        }
    }

    fn gathering_time(&self, count: usize) -> Duration {
        // Each batch wakes every reader. At full load the wake-ups would cost more than the records.
        match count {
            64.. => Duration::from_millis(2),
            4.. => Duration::from_millis(1),
            _ => Duration::ZERO,
        }
    }

    fn commit_due(&self) -> Option<Duration> {
        self.open.as_ref().map(|open| COMMIT_INTERVAL.saturating_sub(open.since.elapsed()))
    }

    fn commit(&mut self) -> Result<(), LogError> {
        self.check_usable()?;
        let Some(Open { batch, position, .. }) = self.open.take() else { return Ok(()) };
        self.shared.flush(batch).inspect_err(|_| self.spent = true)?;
        self.position = Some(position);
        Ok(())
    }
}

impl Drop for EmbeddedPublisher {
    fn drop(&mut self) {
        // After a failure the next publisher finds the position and publishes the records again.
        let _ = self.commit();
    }
}
