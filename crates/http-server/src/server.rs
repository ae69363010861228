//! Runs a router on a listener, within bounds.
//!
//! `axum::serve` has no header timeout, so that a silent connection stays for ever, no cap and no end to its draining;
//! hence a loop of our own over hyper. A request that was taken is answered, also while shutting down, unless its
//! handler outlasts the drain: the caller's going away does not cut a handler off half-way.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::Service as _;
use tracing::{debug, info, warn};

use crate::connection::Connection;

/// How many connections are open at once. More wait in the listener's backlog. With [`MAX_BUFFER_BYTES`] each way it
/// bounds memory, and it stays clear of the usual limit on open files where that was raised as servers do.
pub const MAX_CONNECTIONS: usize = 4096;

/// How long a request's head may take, and how long a connection may idle between requests: a client that sends its
/// head byte by byte holds a connection no longer than this.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How long open connections get to finish when the server stops: below the 30 seconds that Kubernetes grants.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest request head, and a connection's buffer in each direction: four times what browsers send with cookies.
/// The number of headers is bounded by hyper's own 100; naming it would move them from the stack to the heap.
pub const MAX_BUFFER_BYTES: usize = 32 * 1024;

/// How long to wait before accepting again when the system has no file descriptor to give: one may be closed by then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bounds of a server that a test or an operator may want otherwise.
#[derive(Debug, Clone, Copy)]
pub struct ServeSettings {
    /// See [`MAX_CONNECTIONS`].
    pub max_connections: usize,
    /// See [`HEADER_READ_TIMEOUT`].
    pub header_read_timeout: Duration,
    /// See [`DRAIN_TIMEOUT`].
    pub drain_timeout: Duration,
}

impl Default for ServeSettings {
    fn default() -> Self {
        Self {
            max_connections: MAX_CONNECTIONS,
            header_read_timeout: HEADER_READ_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
        }
    }
}

/// Serves `router` on `listener` until `shutdown` is cancelled and the open connections are done or out of time.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    serve_with(listener, router, shutdown, ServeSettings::default()).await;
}

/// [`serve`] within the bounds of `settings`.
pub async fn serve_with(listener: TcpListener, router: Router, shutdown: CancellationToken, settings: ServeSettings) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(settings.header_read_timeout)
        .max_buf_size(MAX_BUFFER_BYTES)
        .max_header_size(MAX_BUFFER_BYTES) // the buffer alone may take in a little more before anyone counts
        .half_close(true); // a peer that has said all it has to say still wants its answer
    let permits = Arc::new(Semaphore::new(settings.max_connections));
    let abort = CancellationToken::new();
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(keep_a_timer(settings.header_read_timeout / 2)));

    while let Some((stream, permit)) = next_connection(&listener, &permits, &shutdown).await {
        let (http, router) = (http.clone(), router.clone());
        // A token of its own, so that polling it contends with no other connection.
        let (shutdown, abort) = (shutdown.child_token(), abort.clone());
        tokio::spawn(async move {
            serve_connection(stream, &http, router, &shutdown, &abort).await;
            drop(permit);
        });
    }

    drop(listener);
    let open = settings.max_connections - permits.available_permits();
    debug!(open, "draining connections");
    let all = u32::try_from(settings.max_connections).unwrap_or(u32::MAX);
    if tokio::time::timeout(settings.drain_timeout, permits.acquire_many(all)).await.is_err() {
        let open = settings.max_connections - permits.available_permits();
        warn!(open, "connections cut off: they did not finish in time");
        abort.cancel();
    }
}

/// Has a timer at every moment, which ends in `period` at most: well before the time for a head that a connection begins to wait for.
///
/// While all connections wait for their handlers none of them has a timer. The next one would be the earliest of all then, and
/// tokio wakes the thread that waits for sockets to tell it: a system call for one `POST` in three, and 7 % of the processor
/// time of one.
async fn keep_a_timer(period: Duration) {
    loop {
        tokio::time::sleep(period).await;
    }
}

/// The next connection and its place among the open ones; `None` once `shutdown` is cancelled.
async fn next_connection(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let next = async {
        // The place comes first: what finds none stays in the backlog. The semaphore is never closed.
        let permit = permits.clone().acquire_owned().await.ok()?;
        Some((accept(listener).await, permit))
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        next = next => next,
    }
}

/// Accepts, however long the system refuses to.
async fn accept(listener: &TcpListener) -> TcpStream {
    let mut failures = 0_u64;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if failures > 0 {
                    info!(failures, "accepting connections again");
                }
                return stream;
            }
            // The peer's affair: it was gone before it was accepted.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                if failures == 0 {
                    warn!(%error, "cannot accept connections; trying on");
                }
                failures += 1;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    http: &http1::Builder,
    router: Router,
    shutdown: &CancellationToken,
    abort: &CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY is not set"); // slower, not wrong
    }
    let service = service_fn(move |request| router.clone().call(request));
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(Connection::new(stream)), service));
    let outcome = tokio::select! {
        biased;
        outcome = connection.as_mut() => outcome,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                outcome = connection.as_mut() => outcome,
                () = abort.cancelled() => return,
            }
        }
    };
    if let Err(error) = outcome {
        debug!(%error, "a connection ended badly"); // the peer's doing, or a timeout's
    }
}
