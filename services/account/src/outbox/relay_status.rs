//! The state of the relay.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::RelayError;

/// The state of the relay, for `/readyz` and the log.
#[derive(Debug, Default)]
pub(crate) struct RelayStatus {
    failure: Mutex<Option<String>>,
    /// Events in the outbox after the last failure; 0 while publishing works.
    waiting: AtomicU64,
    published: AtomicU64,
}

impl RelayStatus {
    /// Why publishing fails now, if it does.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Events that wait for the log, as of the last attempt.
    pub(crate) fn waiting_count(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Events published since the start.
    pub(crate) fn published_count(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    pub(super) fn published(&self, count: usize) {
        self.published.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Records a failure, and logs the first one.
    pub(super) fn failed(&self, error: &RelayError, waiting: Option<u64>) {
        self.waiting.store(waiting.unwrap_or_default(), Ordering::Relaxed);
        if self.failure.lock().replace(error.to_string()).is_none() {
            tracing::warn!(%error, "events wait in the outbox until the event log takes them");
        }
    }

    pub(super) fn succeeded(&self) {
        self.waiting.store(0, Ordering::Relaxed);
        if self.failure.lock().take().is_some() {
            tracing::info!("the event log takes events again");
        }
    }
}
