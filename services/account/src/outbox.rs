//! The outbox: events committed with the row they tell of (design.md A1), kept until the event log has them (A4).
//!
//! Its sequence is the order of commit, which each database ensures in its own way. A number is never used twice,
//! and it is at least the time of the commit in microseconds: should the database ever be put back to an older copy, its
//! new events still stand behind everything that the relay has published before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use database::StoreError;
use event_log::{LogError, Record};

/// The relay's side of the outbox. Each database has its own.
pub(crate) trait Outbox: Send {
    /// Whether this instance is the one to publish now. Asked before each batch.
    fn may_publish(&mut self) -> Result<bool, StoreError>;

    /// Up to `limit` events behind `position`, in order, as records, with the position of the last one.
    fn read_after(&mut self, position: u64, limit: usize) -> Result<(Vec<Record>, u64), StoreError>;

    /// How far events have ever been removed. A log that does not reach so far lacks events that nobody has any more.
    fn removed(&mut self) -> Result<u64, StoreError>;

    /// Hands the state of every account to `publish`, as records, a page at a time, all as of one moment. The last page
    /// comes with the position of that moment: what is in the outbox up to there is told by the pages, and what is behind
    /// it is newer than all of them.
    fn every_account(
        &mut self,
        publish: &mut dyn FnMut(Vec<Record>, Option<u64>) -> Result<(), LogError>,
    ) -> Result<(), RelayError>;

    /// How many events wait in it.
    fn waiting(&mut self) -> Result<u64, StoreError>;

    /// Lets everything up to and including `position` go, some time soon: the event log has it.
    fn remove_published(&mut self, position: u64) -> Result<(), StoreError>;

    /// Lets another instance publish at once: this one has ended.
    fn release(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Called when there is nothing to publish: the time for what can wait.
    fn tidy(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Why publishing stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the outbox cannot be read: {0}")]
    Outbox(#[from] StoreError),
}

/// How far the event log has acknowledged the outbox: the relay moves it, the writer removes up to it when it commits
/// next, so that removal costs no sync of its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct PublishedPosition(Arc<AtomicU64>);

impl PublishedPosition {
    pub(crate) fn advance(&self, position: u64) {
        self.0.fetch_max(position, Ordering::Release);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Wakes the relay when events are committed. It holds one signal: more say nothing that the first does not.
#[derive(Clone)]
pub(crate) struct OutboxSignal(SyncSender<()>);

impl OutboxSignal {
    pub(crate) fn channel() -> (OutboxSignal, OutboxWait) {
        let (sender, receiver) = sync_channel(1);
        (OutboxSignal(sender), OutboxWait(receiver))
    }

    /// Says that the outbox may have more than before.
    pub(crate) fn notify(&self) {
        // A full channel already says it, a closed one has nobody left to tell.
        let _ = self.0.try_send(());
    }
}

/// The relay's end.
pub(crate) struct OutboxWait(Receiver<()>);

impl OutboxWait {
    /// Waits for a signal, at most `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) {
        match self.0.recv_timeout(timeout) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            // Nobody will signal any more: keep the pace of the fallback poll.
            Err(RecvTimeoutError::Disconnected) => std::thread::park_timeout(timeout),
        }
    }
}

/// Accounts on one page of [`Outbox::every_account`].
pub(crate) const PAGE_ACCOUNTS: usize = 1_000;
