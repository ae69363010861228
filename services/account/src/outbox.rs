//! The outbox: events that are committed with the row they describe (ARCHITECTURE.md A1) and stay until the event log has
//! acknowledged them (A4).
//!
//! The sequence of events is the order of commit. A sequence is never used twice.

pub(crate) mod recent_events;
pub(crate) mod relay;
pub(crate) mod relay_status;
pub mod resync;

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use account_events::{LastEvent, Owner};
use event_log::{LogError, Record};
use group_commit::StoreError;

use crate::lineage::Lineage;

/// Beyond every position in the outbox: sequences have 63 bits.
pub(crate) const NO_END: u64 = i64::MAX as u64;

/// The outbox as the relay uses it, implemented for each database.
pub(crate) trait Outbox: Send {
    /// Acquires or renews the lease. Returns whether this instance holds it. The relay calls this before each batch.
    fn acquire_lease(&mut self) -> Result<bool, StoreError>;

    /// What the database knows of its own events, and of the session and the last event that the log names with this position.
    fn lineage(&mut self, owner: Option<&Owner>, position: u64) -> Result<Lineage, StoreError>;

    /// Adds a session. It is durable when this returns, and the publisher of the session is opened after that.
    fn add_session(&mut self, session: &str) -> Result<(), StoreError>;

    /// Records that the log names the session that was added last: the database and the log belong together. Until the session ends, a
    /// lost connection to the database is an error: the database may come back as another copy, which must be compared first.
    fn session_confirmed(&mut self) -> Result<(), StoreError>;

    /// Removes published events whose removal was deferred, and records that the publisher of the session is closed: from now on nobody
    /// vouches for the database.
    fn session_ended(&mut self) {}

    /// About the highest sequence of an account: accounts of the last second may be missing.
    fn account_sequence_high(&self) -> u64;

    /// Stores why the database takes no writes, for other instances and for the next start.
    fn set_superseded(&mut self, reason: Option<&str>) -> Result<(), StoreError>;

    /// Why the database takes no writes, as an instance had stored it when the lease was last refused.
    fn superseded(&mut self) -> Result<Option<String>, StoreError>;

    /// About `limit` events after `after` and up to and including `up_to`; `None` if there are none. Both bounds are positions that
    /// [`read`](Outbox::read) has returned, or ends of transactions. With [`NO_END`] the latest commits of other instances may be left
    /// for the next call.
    fn read(&mut self, after: u64, up_to: u64, limit: usize) -> Result<Option<NextEvents<'_>>, StoreError>;

    /// The position up to which all events are published, whether removed yet or not. A log whose position is lower has lost events.
    fn removed(&mut self) -> Result<u64, StoreError>;

    /// The sequence of the last committed event; 0 if there was none.
    fn last(&mut self) -> Result<u64, StoreError>;

    /// The number of events after `after`.
    fn waiting(&mut self, after: u64) -> Result<u64, StoreError>;

    /// Removes the events up to and including `position` soon: the event log has them.
    fn remove_published(&mut self, position: u64) -> Result<(), StoreError>;

    /// Releases the lease: this instance ends.
    fn release(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// The latest resync request that is open. The database is asked at intervals, not at each call.
    fn resync_requested(&mut self) -> Result<Option<ResyncRequest>, StoreError>;

    /// Requests a resync. The request stays open until an instance has met it.
    fn request_resync(&mut self) -> Result<(), StoreError>;

    /// The states of up to `limit` accounts after the account with this sequence, in the order of sequences.
    fn accounts_after(&mut self, sequence: u64, limit: usize) -> Result<AccountPage, StoreError>;

    /// Marks `request` and all requests before it as met.
    fn resync_done(&mut self, request: ResyncRequest) -> Result<(), StoreError>;

    /// Makes the next read return everything that is committed by then.
    fn refresh(&mut self) {}

    /// Removes published events whose removal was deferred. The relay calls this when there is nothing to publish.
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

/// Events from the outbox.
pub(crate) struct NextEvents<'a> {
    /// The events as records, in order.
    pub(crate) records: &'a [Record],
    /// The sequence of the last event.
    pub(crate) position: u64,
    pub(crate) last_event: LastEvent,
}

/// A snapshot of some accounts' states as records.
#[derive(Debug, Default)]
pub(crate) struct AccountPage {
    pub(crate) records: Vec<Record>,
    /// The sequence of the last account.
    pub(crate) last: u64,
    /// The last event in the outbox at the snapshot: later events are newer than the page.
    pub(crate) head: u64,
}

/// A request to publish the state of every account (a resync). The number counts the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ResyncRequest(pub(crate) i64);

/// The number of requests that were made, and that were met.
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

/// Wakes the relay after a commit. Several signals count as one.
#[derive(Clone)]
pub(crate) struct OutboxSignal(SyncSender<()>);

impl OutboxSignal {
    pub(crate) fn channel() -> (OutboxSignal, OutboxWait) {
        let (sender, receiver) = sync_channel(1);
        (OutboxSignal(sender), OutboxWait(receiver))
    }

    /// Signals that the outbox may have more events.
    pub(crate) fn notify(&self) {
        // A full channel holds a signal already; a closed one has no receiver.
        let _ = self.0.try_send(());
    }
}

/// The receiving end of [`OutboxSignal`].
pub(crate) struct OutboxWait(Receiver<()>);

impl OutboxWait {
    /// Waits for a signal, at most `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) {
        match self.0.recv_timeout(timeout) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            // No signal will come: keep the interval of the fallback poll.
            Err(RecvTimeoutError::Disconnected) => std::thread::park_timeout(timeout),
        }
    }
}
