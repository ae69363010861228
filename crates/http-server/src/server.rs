//! Runs an app on a listener, within bounds.
//!
//! `axum::serve` has no header timeout, no limit on connections and no end of its drain, so this module is an accept loop
//! over hyper. A request that was read is answered, also while the server stops, unless its handler outlasts the drain.
//! The server stops a handler only then, not when the caller goes away.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::connection::Connection;
use crate::connection_state::{ConnectionState, Phase};
use crate::finish::App;
use crate::prefer::PREFER;
use crate::slots::{Slots, client_of};
use crate::stream::Stream;

/// How many connections a listener has open at once: one client, which has three quarters of them, may have the 10,000 requests of the
/// card service that wait. [`MAX_BUFFER_BYTES`] in each direction bounds their memory; TLS has the same again.
pub const MAX_CONNECTIONS: usize = 16 * 1024;

/// How many connections a listener accepts beyond [`MAX_CONNECTIONS`]: a burst of health probes. Health checks are answered
/// on these connections, and any other request gets 503. A connection that waits for its peer is closed for a new one.
pub const SPARE_CONNECTIONS: usize = 32;

/// How long a spare connection may take for its one request.
const SPARE_TIME: Duration = Duration::from_secs(5);

/// How long accepting pauses while all spare connections are being answered, which takes microseconds.
const SPARE_PAUSE: Duration = Duration::from_millis(1);

/// How long the head of a request may take from its first byte. The limit bounds how long a client that sends its head
/// byte by byte holds a connection.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be idle: longer than the 60 seconds that proxies and load balancers use by default. If the
/// server closed first, a proxy could lose a request that it sends at that moment.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// How long open connections may take to finish when the server stops: less than the 30 seconds that Kubernetes grants.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest request head, and a connection's buffer in each direction: four times what browsers send with cookies.
/// hyper bounds the number of headers by 100. Setting that limit explicitly would move the headers from the stack to the
/// heap.
pub const MAX_BUFFER_BYTES: usize = 32 * 1024;

/// The pause before the next accept when the system has no file descriptor left: one may be closed meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bounds of a server that tests or operators change.
#[derive(Debug, Clone, Copy)]
pub struct ServeSettings {
    /// See [`MAX_CONNECTIONS`].
    pub max_connections: usize,
    /// The connections of one address; three quarters of all if `None`.
    pub max_connections_per_address: Option<usize>,
    /// See [`IDLE_TIMEOUT`].
    pub idle_timeout: Duration,
    /// See [`HEADER_READ_TIMEOUT`].
    pub header_read_timeout: Duration,
    /// See [`DRAIN_TIMEOUT`].
    pub drain_timeout: Duration,
}

impl Default for ServeSettings {
    fn default() -> Self {
        Self {
            max_connections: MAX_CONNECTIONS,
            max_connections_per_address: None,
            idle_timeout: IDLE_TIMEOUT,
            header_read_timeout: HEADER_READ_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
        }
    }
}

/// Serves `app` on `listener` within the bounds of `settings`, until `shutdown` is cancelled and the open connections are
/// done or out of time.
pub async fn serve(listener: TcpListener, app: App, settings: ServeSettings, shutdown: CancellationToken) {
    let mut http = http1::Builder::new();
    http.max_buf_size(MAX_BUFFER_BYTES)
        .max_header_size(MAX_BUFFER_BYTES) // the buffer exceeds its own limit by up to one read
        .half_close(true); // a peer that has sent all its requests still wants the responses
    if let Some(tls) = app.tls.clone() {
        tokio::spawn(tls.watch(shutdown.clone()));
    }
    let mut server = Server {
        http,
        app: Arc::new(app),
        settings,
        slots: Slots::new(settings.max_connections, settings.max_connections_per_address, shutdown.clone()),
        spare: Vec::new(),
        connections: JoinSet::new(),
        shutdown: shutdown.clone(),
    };
    while let Some((stream, address)) = shutdown.run_until_cancelled(accept(&listener)).await {
        server.take(stream, address).await;
    }
    // A connection in the backlog may hold a request, and closing the listener resets it. tokio may not have seen the
    // connection yet, so the backlog is read through the system.
    if let Ok(listener) = listener.into_std() {
        for (stream, peer) in (0..settings.max_connections).map_while(|_| listener.accept().ok()) {
            match stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                Ok(stream) => server.take(stream, peer.ip()).await,
                Err(error) => debug!(%error, "dropping a connection from the backlog"),
            }
        }
    }

    let mut connections = server.connections;
    debug!(open = connections.len(), "draining connections");
    let ending = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(settings.drain_timeout, ending).await.is_err() {
        warn!(open = connections.len(), "connections cut off: they did not finish in time");
        connections.shutdown().await;
    }
}

/// Accepts the next connection; while the system refuses, tries again.
async fn accept(listener: &TcpListener) -> (TcpStream, IpAddr) {
    let mut failures = 0_u64;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if failures > 0 {
                    info!(failures, "accepting connections again");
                }
                return (stream, peer.ip());
            }
            // The peer closed the connection before it was accepted.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                if failures == 0 {
                    warn!(%error, "cannot accept connections; retrying");
                }
                failures += 1;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Server {
    http: http1::Builder,
    app: Arc<App>,
    settings: ServeSettings,
    slots: Arc<Slots>,
    /// The connections without a slot, oldest first.
    spare: Vec<(Arc<ConnectionState>, AbortHandle)>,
    connections: JoinSet<()>,
    shutdown: CancellationToken,
}

impl Server {
    async fn take(&mut self, stream: TcpStream, address: IpAddr) {
        while self.connections.try_join_next().is_some() {}
        let Some(slot) = self.slots.take(address) else { return self.take_spare(stream, address).await };
        let serving = self.serve_connection((stream, address), Arc::clone(&slot.state), false);
        self.connections.spawn(async move {
            serving.await;
            drop(slot);
        });
    }

    async fn take_spare(&mut self, stream: TcpStream, address: IpAddr) {
        while self.spare.len() >= SPARE_CONNECTIONS {
            self.spare.retain(|(_, task)| !task.is_finished());
            let waits = |state: &ConnectionState| matches!(state.phase(), Phase::Idle { .. } | Phase::Head);
            match self.spare.iter().position(|(state, _)| waits(state)) {
                _ if self.spare.len() < SPARE_CONNECTIONS => {}
                Some(waiting) => self.spare.remove(waiting).1.abort(),
                None => tokio::time::sleep(SPARE_PAUSE).await,
            }
        }
        let state = Arc::new(ConnectionState::new(client_of(address), self.shutdown.child_token()));
        let serving =
            tokio::time::timeout(SPARE_TIME, self.serve_connection((stream, address), Arc::clone(&state), true));
        let task = self.connections.spawn(async move {
            let _out_of_time = serving.await;
        });
        self.spare.push((state, task));
    }

    /// Serves one connection to its end. `is_spare` says that the connection has no slot: it gets one response.
    fn serve_connection(
        &self,
        (stream, address): (TcpStream, IpAddr),
        state: Arc<ConnectionState>,
        is_spare: bool,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (app, settings, shutdown) = (Arc::clone(&self.app), self.settings, self.shutdown.clone());
        let mut http = self.http.clone();
        http.keep_alive(!is_spare);
        state.lingers.store(is_spare, Ordering::Relaxed); // the body of its request is not read
        async move {
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%error, "cannot set TCP_NODELAY"); // slower, but correct
            }
            let stream = match &app.tls {
                None => Stream::Plain(stream),
                Some(tls) => match tls.handshake(stream, &state, &settings, &shutdown).await {
                    Some(stream) => Stream::Tls(Box::new(stream)),
                    None => return,
                },
            };
            let io = Connection::new(stream, Arc::clone(&state), &settings);
            let peer = io.peer();
            let service = service_fn(|mut request| {
                if request.headers().contains_key(PREFER) {
                    request.extensions_mut().insert(peer.clone());
                }
                state.set_phase(Phase::Request); // before hyper reads on, not when the future is polled
                async {
                    let mut response = app.answer(request, is_spare, address).await;
                    if state.ending.is_cancelled() {
                        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    } else if response.headers().contains_key(CONNECTION) {
                        state.lingers.store(true, Ordering::Relaxed); // the rest of the body may be on its way
                    }
                    state.set_phase(Phase::Response);
                    Ok::<_, Infallible>(response)
                }
            });
            let mut connection = http.serve_connection(TokioIo::new(io), service);
            let outcome = tokio::select! {
                biased;
                outcome = &mut connection => outcome,
                () = state.ending.cancelled() => {
                    let is_evicted = !shutdown.is_cancelled();
                    match is_evicted && state.idle_since().is_some() {
                        true => Ok(()),
                        false => (&mut connection).await, // answers a request that has arrived meanwhile
                    }
                }
            };
            if let Err(error) = outcome {
                debug!(%error, "connection failed"); // the peer's fault, or a timeout
            }
            let io = connection.into_parts().io;
            drop(peer);
            if let Err(error) = io.into_inner().finish().await {
                debug!(%error, "connection did not close cleanly");
            }
        }
    }
}
