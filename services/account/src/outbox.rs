//! The outbox: events committed with the row they tell of (ARCHITECTURE.md A1), kept until the event log has them (A4).
//!
//! Its sequence is the order of commit, which each database ensures in its own way. A number is never used twice,
//! and it is at least the time of the commit in microseconds: should the database ever be put back to an older copy, its
//! new events still stand behind everything that the relay has published before.

pub(crate) mod recent_events;
pub(crate) mod relay;
pub mod resync;

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use event_log::{LogError, Record};
use group_commit::StoreError;

/// Beyond every position in the outbox: databases count in 63 bits.
pub(crate) const NO_END: u64 = i64::MAX as u64;

/// The relay's side of the outbox. Each database has its own.
pub(crate) trait Outbox: Send {
    /// Whether this instance is the one to publish now. Asked before each batch.
    fn may_publish(&mut self) -> Result<bool, StoreError>;

    /// About `limit` events behind `after` and up to and including `up_to`, in order, as records, with the position of the
    /// last one. Both are positions that [`read`](Outbox::read) has returned, or the end of a transaction. With [`NO_END`] what
    /// another instance has committed this moment may be left for the next call.
    fn read(&mut self, after: u64, up_to: u64, limit: usize) -> Result<(&[Record], u64), StoreError>;

    /// How far events have ever been removed. A log that does not reach so far lacks events that nobody has any more.
    fn removed(&mut self) -> Result<u64, StoreError>;

    /// The sequence of the last event that was committed; 0 if there was none.
    fn last(&mut self) -> Result<u64, StoreError>;

    /// How many events wait in it.
    fn waiting(&mut self) -> Result<u64, StoreError>;

    /// Lets everything up to and including `position` go, some time soon: the event log has it.
    fn remove_published(&mut self, position: u64) -> Result<(), StoreError>;

    /// Lets everything go that is published, and another instance publish at once: this one has ended.
    fn release(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// The latest request to tell the event log the state of every account, unless it has been met. Looked up now and then,
    /// not at each call.
    fn resync_requested(&mut self) -> Result<Option<ResyncRequest>, StoreError>;

    /// Makes such a request. It stands until it is met, whoever publishes by then.
    fn request_resync(&mut self) -> Result<(), StoreError>;

    /// The state of up to `limit` accounts in the order of their sequences, behind the account of this one.
    fn accounts_after(&mut self, sequence: u64, limit: usize) -> Result<AccountPage, StoreError>;

    /// Notes that `request`, and all before it, have been met.
    fn resync_done(&mut self, request: ResyncRequest) -> Result<(), StoreError>;

    /// Has the next read leave out nothing that is committed by then.
    fn look_again(&mut self) {}

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

/// The state of some accounts, as records, all of one moment.
#[derive(Debug, Default)]
pub(crate) struct AccountPage {
    pub(crate) records: Vec<Record>,
    /// The last account's sequence.
    pub(crate) last: u64,
    /// The last event in the outbox at that moment: what is in the outbox up to there is no newer than the page, and what is
    /// behind it is newer.
    pub(crate) head: u64,
}

/// One of the requests for the state of every account: how many there had been when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ResyncRequest(pub(crate) i64);

/// What has been asked for, and what has been done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResyncRequests {
    pub(crate) requested: i64,
    pub(crate) done: i64,
}

impl ResyncRequests {
    /// The latest request, unless it has been met.
    pub(crate) fn open(self) -> Option<ResyncRequest> {
        (self.requested > self.done).then_some(ResyncRequest(self.requested))
    }

    /// Whether `request` has been met.
    pub(crate) fn is_met(self, request: ResyncRequest) -> bool {
        self.done >= request.0
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
