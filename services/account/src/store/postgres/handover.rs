//! Between the writer and the relay of one instance. While it is the one that publishes, its commits are nobody else's
//! business, and its relay need not read them back: so no transaction notifies the others, and the relay asks the server only
//! for what they have committed. Notified of and read back, an account costs the server and this process 5 to 10 % more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::outbox::OutboxSignal;
use crate::store::recent_events::{EventBatch, RecentEvents};

#[derive(Clone)]
pub(super) struct Handover {
    pub(super) recent: RecentEvents,
    signal: OutboxSignal,
    is_publishing: Arc<AtomicBool>,
    /// Whether the server may have events that were not handed over.
    more: Arc<AtomicBool>,
}

impl Handover {
    pub(super) fn new(signal: OutboxSignal) -> Self {
        Handover { recent: RecentEvents::default(), signal, is_publishing: Arc::default(), more: Arc::default() }
    }

    /// Whether this instance is the one that publishes, as far as its relay knows.
    pub(super) fn is_publishing(&self) -> bool {
        self.is_publishing.load(Ordering::Acquire)
    }

    /// Notes whether it is, and returns whether it was.
    pub(super) fn set_publishing(&self, is_publishing: bool) -> bool {
        self.is_publishing.swap(is_publishing, Ordering::AcqRel)
    }

    /// Hands over what was committed while this instance publishes.
    pub(super) fn hand_over(&self, batch: EventBatch) {
        self.recent.add(batch);
        self.signal.notify();
    }

    /// The server may have more events than were handed over.
    pub(super) fn expect_more(&self) {
        self.more.store(true, Ordering::Release);
        self.signal.notify();
    }

    /// Whether it may, as of now.
    pub(super) fn is_more_expected(&self) -> bool {
        self.more.load(Ordering::Acquire)
    }

    /// The server is asked for all it has now.
    pub(super) fn asking(&self) {
        self.more.store(false, Ordering::Release);
    }
}
