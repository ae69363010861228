//! Between the writer and the relay of one instance. While it is the one that publishes, its commits are nobody else's
//! business, and its relay need not read them back: so no transaction notifies the others, and the relay asks the server
//! where they have notified it, where something stands between two transactions, and now and then. Notified of and read back, an
//! account costs the server and this process 5 to 10 % more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::outbox::LEASE;
use crate::outbox::OutboxSignal;
use crate::outbox::recent_events::{EventBatch, RecentEvents};

#[derive(Clone)]
pub(super) struct Handover {
    pub(super) recent: RecentEvents,
    signal: OutboxSignal,
    /// When the lease was granted last, if it still was the last time.
    leased: Arc<Mutex<Option<Instant>>>,
    /// Whether the server may have events that were not handed over.
    more: Arc<AtomicBool>,
}

impl Handover {
    pub(super) fn new(signal: OutboxSignal) -> Self {
        Handover { recent: RecentEvents::default(), signal, leased: Arc::default(), more: Arc::default() }
    }

    /// When the lease was granted last, if it still was the last time.
    pub(super) fn leased(&self) -> Option<Instant> {
        *self.leased.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this instance is the one that publishes: its lease has not run out since.
    pub(super) fn is_publishing(&self) -> bool {
        self.leased().is_some_and(|leased| leased.elapsed() < LEASE)
    }

    /// Notes when the lease was granted, or that it was not, and returns whether it was the last time. What was handed over
    /// before a change is forgotten: it may be published by another instance meanwhile.
    pub(super) fn set_leased(&self, leased: Option<Instant>) -> bool {
        let before = std::mem::replace(&mut *self.leased.lock().unwrap_or_else(PoisonError::into_inner), leased);
        if before.is_some() != leased.is_some() {
            self.recent.clear();
        }
        before.is_some()
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
