//! What a connection is doing, shared by its socket, its handler and the listener.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use tokio::time::Instant;

/// Whose turn it is on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The connection waits for the first byte of a request.
    Idle,
    /// A part of a request's head has arrived.
    Head,
    /// A request is being handled, its body included.
    Request,
    /// A response is on its way, or the connection is new: nobody has looked yet whether there is a request to read.
    Response,
}

/// One connection's state. Only the connection's own task changes the phase; a token that wakes the task follows the
/// other flags.
#[derive(Debug)]
pub(crate) struct Activity {
    phase: AtomicU8,
    /// When the connection became idle, in microseconds since `opened_with`.
    idle_since_micros: AtomicU64,
    /// The listener's start, the origin of all its connections' times.
    opened_with: Instant,
    draining: AtomicBool,
    evicted: AtomicBool,
    lingers: AtomicBool,
}

impl Activity {
    pub(crate) fn new(opened_with: Instant) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Response as u8),
            idle_since_micros: AtomicU64::new(0),
            opened_with,
            draining: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
            lingers: AtomicBool::new(false),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Request,
            _ => Phase::Response,
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub(crate) fn set_idle(&self, now: Instant) {
        let micros = now.saturating_duration_since(self.opened_with).as_micros();
        self.idle_since_micros.store(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.set_phase(Phase::Idle);
    }

    /// When the connection became idle, comparable among one listener's connections; `None` while it is not idle.
    pub(crate) fn idle_since(&self) -> Option<u64> {
        (self.phase() == Phase::Idle).then(|| self.idle_since_micros.load(Ordering::Relaxed))
    }

    /// Whether the connection waits for its peer.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self.phase(), Phase::Idle | Phase::Head)
    }

    /// Whether the server is stopping: an idle connection soon ends, and every response closes its connection.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the connection has lost its place to another one, and ends at once.
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Relaxed)
    }

    pub(crate) fn evict(&self) {
        self.evicted.store(true, Ordering::Relaxed);
    }

    /// Whether the peer may still be sending when the connection closes.
    pub(crate) fn lingers(&self) -> bool {
        self.lingers.load(Ordering::Relaxed)
    }

    pub(crate) fn linger(&self) {
        self.lingers.store(true, Ordering::Relaxed);
    }
}
