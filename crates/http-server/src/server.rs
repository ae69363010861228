//! Runs a router on a listener, within bounds.
//!
//! `axum::serve` has no header timeout, no limit on connections and no end to its drain, so this is an accept loop over
//! hyper. A request that was read is answered, also while the server stops, unless its handler outlasts the drain: a
//! handler is not cancelled when its caller goes away.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::Service as _;
use tracing::{debug, info, warn};

use crate::activity::{Activity, Phase};
use crate::connection::Connection;
use crate::guard::Overloaded;
use crate::places::Places;

/// How many connections a listener has open at once. With [`MAX_BUFFER_BYTES`] each way the limit bounds memory.
pub const MAX_CONNECTIONS: usize = 4096;

/// How many connections a listener takes beyond its places. They are answered health checks, and 503 to anything else.
/// The number is a burst of probes; one that waits for its peer is closed for a new one.
pub const SPARE_CONNECTIONS: usize = 32;

/// How long a connection without a place may take for its one request.
const SPARE_TIME: Duration = Duration::from_secs(5);

/// How long accepting pauses while all connections without a place are being answered, which takes microseconds.
const SPARE_PAUSE: Duration = Duration::from_millis(1);

/// How long the head of a request may take from its first byte: a client that sends its head byte by byte holds a
/// connection no longer than this.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be idle. Proxies and load balancers keep idle connections for 60 seconds by default, and
/// lose the request that they send while the server closes; so the server is the one that keeps them longer.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// How long open connections get to finish when the server stops: below the 30 seconds that Kubernetes grants.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest request head, and a connection's buffer in each direction: four times what browsers send with cookies.
/// The number of headers is bounded by hyper's own 100; naming it would move them from the stack to the heap.
pub const MAX_BUFFER_BYTES: usize = 32 * 1024;

/// How long to wait before the next accept when the system has no file descriptor to give: one may be closed by then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bounds of a server that a test or an operator may want otherwise.
#[derive(Debug, Clone, Copy)]
pub struct ServeSettings {
    /// See [`MAX_CONNECTIONS`].
    pub max_connections: usize,
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
            idle_timeout: IDLE_TIMEOUT,
            header_read_timeout: HEADER_READ_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
        }
    }
}

/// Serves `router`, which [`finish`](crate::finish()) has completed, on `listener` within the bounds of `settings`, until
/// `shutdown` is cancelled and the open connections are done or out of time.
pub async fn serve(listener: TcpListener, router: Router, settings: ServeSettings, shutdown: CancellationToken) {
    let mut http = http1::Builder::new();
    http.max_buf_size(MAX_BUFFER_BYTES)
        .max_header_size(MAX_BUFFER_BYTES) // the buffer alone may take in a little more before anyone counts
        .half_close(true); // a peer that has sent all its requests still wants the responses
    let mut server = Server {
        http,
        router,
        settings,
        places: Places::new(settings.max_connections, shutdown.clone()),
        spare: Vec::new(),
        connections: JoinSet::new(),
        shutdown: shutdown.clone(),
    };
    while let Some((stream, address)) = shutdown.run_until_cancelled(accept(&listener)).await {
        server.take(stream, address).await;
    }
    // A connection in the backlog may have sent its request; closing the listener would reset it. The runtime may not have
    // heard of the connection yet, so the system is asked.
    if let Ok(listener) = listener.into_std() {
        for (stream, peer) in (0..settings.max_connections).map_while(|_| listener.accept().ok()) {
            match stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                Ok(stream) => server.take(stream, peer.ip()).await,
                Err(error) => debug!(%error, "a connection from the backlog is dropped"),
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

/// Accepts, however long the system refuses to.
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
            // The peer was gone before it was accepted.
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

struct Server {
    http: http1::Builder,
    router: Router,
    settings: ServeSettings,
    places: Arc<Places>,
    /// The connections without a place, oldest first.
    spare: Vec<(Arc<Activity>, AbortHandle)>,
    connections: JoinSet<()>,
    shutdown: CancellationToken,
}

impl Server {
    async fn take(&mut self, stream: TcpStream, address: IpAddr) {
        while self.connections.try_join_next().is_some() {}
        let Some(place) = self.places.take(address) else { return self.take_spare(stream).await };
        let (activity, ending) = (Arc::clone(&place.activity), place.ending.clone());
        let serving = self.serve_connection(stream, self.http.clone(), activity, ending, false);
        self.connections.spawn(async move {
            serving.await;
            drop(place);
        });
    }

    async fn take_spare(&mut self, stream: TcpStream) {
        while self.spare.len() >= SPARE_CONNECTIONS {
            self.spare.retain(|(_, task)| !task.is_finished());
            match self.spare.iter().position(|(activity, _)| activity.is_silent()) {
                _ if self.spare.len() < SPARE_CONNECTIONS => {}
                Some(silent) => self.spare.remove(silent).1.abort(),
                None => tokio::time::sleep(SPARE_PAUSE).await,
            }
        }
        let mut http = self.http.clone();
        http.keep_alive(false);
        let (activity, ending) = (Arc::new(Activity::new(Instant::now())), self.shutdown.child_token());
        let serving = self.serve_connection(stream, http, Arc::clone(&activity), ending, true);
        let serving = tokio::time::timeout(SPARE_TIME, serving);
        let task = self.connections.spawn(async move {
            let _out_of_time = serving.await;
        });
        self.spare.push((activity, task));
    }

    /// Serves one connection to its end. `ending` belongs to this connection alone, so that polling it contends with no
    /// other connection. `is_spare` says that the connection has no place.
    fn serve_connection(
        &self,
        stream: TcpStream,
        http: http1::Builder,
        activity: Arc<Activity>,
        ending: CancellationToken,
        is_spare: bool,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (router, settings) = (self.router.clone(), self.settings);
        async move {
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%error, "TCP_NODELAY is not set"); // slower, not wrong
            }
            let io = Connection::new(stream, Arc::clone(&activity), &settings);
            let service = service_fn(|request| handle(router.clone(), Arc::clone(&activity), is_spare, request));
            let mut connection = http.serve_connection(TokioIo::new(io), service);
            let outcome = tokio::select! {
                biased;
                outcome = &mut connection => outcome,
                () = ending.cancelled() => {
                    // A request that has come meanwhile is answered first.
                    if activity.is_evicted() && activity.idle_since().is_some() {
                        return;
                    }
                    activity.drain();
                    (&mut connection).await
                }
            };
            if let Err(error) = outcome {
                debug!(%error, "a connection failed"); // the peer's doing, or a timeout's
            }
            if let Err(error) = connection.into_parts().io.into_inner().finish().await {
                debug!(%error, "a connection did not end in order");
            }
        }
    }
}

/// Handles one request, and keeps `activity` up to date from the moment of the call. A response that is the last one of
/// its connection says so.
fn handle(
    mut router: Router,
    activity: Arc<Activity>,
    is_spare: bool,
    mut request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Body>, Infallible>> {
    activity.set_phase(Phase::Request);
    if is_spare {
        activity.linger(); // the request's body is not read
        request.extensions_mut().insert(Overloaded);
    }
    let response = router.call(request);
    async move {
        let mut response = response.await?;
        if activity.is_draining() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        } else if response.headers().contains_key(CONNECTION) {
            activity.linger(); // the rest of the request's body may be on its way
        }
        activity.set_phase(Phase::Response);
        Ok(response)
    }
}
