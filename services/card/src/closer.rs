//! The card closer: when an account is deleted, its cards end with it (ARCHITECTURE.md C4).
//!
//! It reads as a member of the group `KAFKA_GROUP_ID`, whose position moves only behind what the card database has
//! committed: however often all instances are down, each deletion is handled at least once, and handling it again changes
//! nothing. That it is handled soon, whoever has died, the feeds see to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use account_events::{AccountEvent, AccountStatus};
use event_log::{EventLog, GroupReader, LogError};

use crate::http::error::CardError;
use crate::store::Store;

/// How long one poll waits for records, which bounds how long the closer takes to notice the end of the service.
const POLL: Duration = Duration::from_millis(250);

/// How long the group's position may lie behind what was read: a commit for each record would cost more than reading it.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct CardCloser {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) group: String,
    pub(crate) store: Store,
    pub(crate) stopping: Arc<AtomicBool>,
}

#[derive(Debug, thiserror::Error)]
enum CloserError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Store(#[from] CardError),
}

impl CardCloser {
    /// Closes cards until the service ends. After a failure it begins anew from the group's position.
    pub(crate) fn run(self) {
        let mut failing = false;
        while !self.stopping() {
            let Err(error) = self.close_until_failure(&mut failing) else { return };
            if !std::mem::replace(&mut failing, true) {
                tracing::warn!(%error, "the card closer cannot go on, and tries again");
            }
            std::thread::park_timeout(PAUSE);
        }
    }

    fn close_until_failure(&self, failing: &mut bool) -> Result<(), CloserError> {
        self.log.prepare()?;
        let mut reader = self.log.group_reader(&self.group)?;
        let mut committed = Instant::now();
        let mut uncommitted = false;
        while !self.stopping() {
            let read = self.close_next(reader.as_mut())?;
            uncommitted |= read > 0;
            if uncommitted && committed.elapsed() >= COMMIT_INTERVAL {
                reader.commit()?;
                (committed, uncommitted) = (Instant::now(), false);
            }
            if std::mem::take(failing) {
                tracing::info!("the card closer goes on");
            }
        }
        Ok(reader.commit()?)
    }

    /// Reads what has come, and closes the accounts that are deleted by it. Returns how many records it read.
    fn close_next(&self, reader: &mut dyn GroupReader) -> Result<usize, CloserError> {
        let mut deleted = Vec::new();
        let read = reader.poll(POLL, &mut |record| {
            // What cannot be understood is the feed's to put in quarantine.
            if let Ok(event) = AccountEvent::decode(record)
                && event.status == AccountStatus::Deleted
            {
                deleted.push(event.account_id);
            }
        })?;
        if !deleted.is_empty() {
            let accounts = deleted.len();
            self.store.close_accounts(deleted)?;
            tracing::debug!(accounts, "closed the cards of deleted accounts");
        }
        Ok(read)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}
