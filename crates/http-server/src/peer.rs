//! The peer of a request that waits.

use std::future::poll_fn;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::stream::Stream;

/// The other end of a connection, in the extensions of each request with a `Prefer` header. A handler that waits asks it whether
/// anybody still waits for the response: hyper does not read while a handler runs.
#[derive(Debug, Clone)]
pub struct Peer(pub(crate) Arc<Mutex<Stream>>);

impl Peer {
    /// Completes when the peer has closed the connection. A peer that has closed only its sending side looks the same. Never completes
    /// if the peer has sent more requests behind the one that waits.
    pub async fn closed(&self) {
        poll_fn(|context| self.0.lock().poll_closed(context)).await;
    }
}
