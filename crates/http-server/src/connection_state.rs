//! The state of one connection, which its socket, its requests and the listener share.

use std::net::IpAddr;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The step of the request cycle that a connection is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The connection waits for the first byte of a request.
    Idle {
        /// When the wait began.
        since: Instant,
    },
    /// A part of a request's head has arrived.
    Head,
    /// A request is being handled, its body included.
    Request,
    /// A response is being written, or the connection is new and has not been read yet.
    Response,
}

#[derive(Debug)]
pub(crate) struct ConnectionState {
    /// The peer, as far as limits tell peers apart.
    pub(crate) client: IpAddr,
    /// Cancelled when the server stops, and when the connection loses its slot. An idle connection then closes soon, and
    /// any other one after its response. The token belongs to one connection, so that polling it is not contended.
    pub(crate) ending: CancellationToken,
    /// Whether the peer may still be sending when the connection closes.
    pub(crate) lingers: AtomicBool,
    phase: Mutex<Phase>,
}

impl ConnectionState {
    pub(crate) fn new(client: IpAddr, ending: CancellationToken) -> Self {
        Self { client, ending, lingers: AtomicBool::new(false), phase: Mutex::new(Phase::Response) }
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.lock()
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        *self.phase.lock() = phase;
    }

    /// Returns when the connection became idle; `None` if it is not idle.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        match self.phase() {
            Phase::Idle { since } => Some(since),
            _ => None,
        }
    }
}
