//! The embedded log's publisher.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shared::Shared;
use crate::{LogError, Publisher, Record};

/// How long a commit is put off, for whatever more there is to publish. A commit writes a page of each partition's table and
/// syncs, whether it brings one record or a thousand, and only what outlives the process waits for it. It is as long as on Kafka. With
/// 50 ms the relay took 5 to 10 % more time, and with 20 the log's upkeep two thirds more than with those.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct EmbeddedPublisher {
    shared: Arc<Shared>,
    name: Arc<str>,
    epoch: u64,
    position: Option<u64>,
    /// What readers see, and the file has not yet.
    open: Option<Open>,
    /// Set when a commit failed. Its records are visible and will be in the file with the next commit, so publishing
    /// them once more through this publisher would put them there twice.
    spent: bool,
}

/// Batches that have been appended since the last commit.
struct Open {
    since: Instant,
    /// The number of the last one.
    batch: u64,
    position: u64,
}

impl EmbeddedPublisher {
    pub(super) fn open(shared: Arc<Shared>, name: &str) -> Result<EmbeddedPublisher, LogError> {
        let name = Arc::from(name);
        let (epoch, position) = shared.open_publisher(&name)?;
        Ok(EmbeddedPublisher { shared, name, epoch, position, open: None, spent: false })
    }

    fn check_usable(&self) -> Result<(), LogError> {
        match self.spent {
            true => Err(LogError::Unavailable("an earlier publish failed: open a new publisher".to_owned())),
            false => Ok(()),
        }
    }
}

impl Publisher for EmbeddedPublisher {
    fn position(&self) -> Option<u64> {
        self.position
    }

    fn append(&mut self, records: &[Record], position: u64) -> Result<(), LogError> {
        self.check_usable()?;
        // If it is refused, nothing of the batch was taken.
        let batch = self.shared.append(&self.name, self.epoch, records, position)?;
        let since = self.open.as_ref().map_or_else(Instant::now, |open| open.since);
        self.open = Some(Open { since, batch, position });
        match self.commit_due() {
            Some(Duration::ZERO) => self.commit(),
            _ => Ok(()),
        }
    }

    fn gathering_time(&self, count: usize) -> Duration {
        // Every batch wakes each reader, and at full load the wakes would cost more than the records. The longer time saves a
        // tenth of what the relay takes there.
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
    /// What readers have seen need not be published again by the next one.
    fn drop(&mut self) {
        // If it fails, the position tells that it must be.
        let _ = self.commit();
    }
}
