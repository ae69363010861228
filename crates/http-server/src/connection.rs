//! The stream that hyper reads and writes, with three additions:
//!
//! - The idle time and the time for a request's head are separate limits. hyper has one timer for both.
//! - A write that makes no progress ends the connection, so that a peer that stops reading does not hold it for ever.
//! - hyper refuses a request head that it cannot parse with an empty body. [`Connection`] discards that response, and
//!   [`Connection::finish`] sends one with the standard error.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::StatusCode;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use crate::connection_state::{ConnectionState, Phase};
use crate::error::ApiError;
use crate::peer::Peer;
use crate::server::ServeSettings;
use crate::stream::Stream;

/// How long a write may make no progress before the peer counts as gone.
const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an idle connection stays open while the server stops: a request that is on its way arrives within a round trip,
/// and is answered.
pub(crate) const IDLE_DRAIN_TIME: Duration = Duration::from_millis(250);

/// How long the server reads and discards input after the last response. Closing a socket with unread bytes resets the
/// connection, and the peer may lose the response.
pub(crate) const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) struct Connection {
    stream: Arc<Mutex<Stream>>,
    state: Arc<ConnectionState>,
    settings: ServeSettings,
    /// One timer for the life of the connection: resetting its deadline needs no allocation and no lock.
    timer: Option<Pin<Box<Sleep>>>,
    /// The limit that the timer measures.
    timed: Option<Limit>,
    /// Runs while a write makes no progress.
    stall: Option<Pin<Box<Sleep>>>,
    /// The status of the response that [`Connection::finish`] sends.
    refused: Option<StatusCode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Head,
    Idle,
    IdleDrain,
}

impl Connection {
    pub(crate) fn new(stream: Stream, state: Arc<ConnectionState>, settings: &ServeSettings) -> Self {
        let stream = Arc::new(Mutex::new(stream));
        Self { stream, state, settings: *settings, timer: None, timed: None, stall: None, refused: None }
    }

    /// The peer, for handlers.
    pub(crate) fn peer(&self) -> Peer {
        Peer(Arc::clone(&self.stream))
    }

    /// Completes when the peer has sent nothing for too long. Called when there is nothing to read.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let limit = match self.state.phase() {
            Phase::Request => return Poll::Pending, // `JsonBody` limits the time of a body
            Phase::Head => Limit::Head,
            Phase::Idle { .. } | Phase::Response if self.state.ending.is_cancelled() => Limit::IdleDrain,
            Phase::Idle { .. } | Phase::Response => Limit::Idle,
        };
        if self.timed != Some(limit) {
            let now = Instant::now();
            let time = match limit {
                Limit::Head => self.settings.header_read_timeout,
                Limit::Idle => self.settings.idle_timeout,
                Limit::IdleDrain => IDLE_DRAIN_TIME,
            };
            if limit != Limit::Head {
                self.state.set_phase(Phase::Idle { since: now });
            }
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(now + time),
                None => self.timer = Some(Box::pin(sleep_until(now + time))),
            }
            self.timed = Some(limit);
        }
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(context),
            None => Poll::Pending,
        }
    }

    /// Returns the outcome of a write, or a timeout if the write has made no progress for too long.
    fn watch<T>(&mut self, outcome: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stall = None;
            return outcome;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(WRITE_STALL_TIMEOUT)));
        ready!(stall.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, "the peer does not read")))
    }

    /// Whether `head` is a refusal that hyper wrote by itself, whose status is kept for [`Connection::finish`].
    fn swallows(&mut self, head: &[u8]) -> bool {
        let status = refused_status(head);
        self.refused = self.refused.or(status);
        status.is_some()
    }

    /// Closes the connection after hyper is done: sends a response that is due, and waits until the peer can have read the
    /// last response.
    pub(crate) async fn finish(self) -> io::Result<()> {
        // No handler is left that has the peer.
        let Some(stream) = Arc::into_inner(self.stream) else { return Ok(()) };
        let mut stream = stream.into_inner();
        if let Some(status) = self.refused {
            tracing::debug!(%status, "a request head was refused");
            timeout(WRITE_STALL_TIMEOUT, stream.write_all(&refusal(status))).await??;
        } else if !self.state.lingers.load(Ordering::Relaxed) {
            stream.close().await;
            return Ok(());
        }
        self.state.set_phase(Phase::Idle { since: Instant::now() });
        timeout(LINGER_TIMEOUT, stream.shutdown()).await??;
        let mut scratch = [0; 4096];
        let discarding = async { while stream.read(&mut scratch).await.is_ok_and(|length| length > 0) {} };
        let _out_of_time = timeout(LINGER_TIMEOUT, discarding).await;
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut *self.stream.lock()).poll_read(cx, buffer);
        if let Poll::Ready(outcome) = polled {
            match self.state.phase() {
                Phase::Idle { .. } | Phase::Response if buffer.filled().len() > before => {
                    self.state.set_phase(Phase::Head);
                    self.timed = None;
                }
                Phase::Request => self.timed = None,
                Phase::Idle { .. } | Phase::Head | Phase::Response => {}
            }
            return Poll::Ready(outcome);
        }
        ready!(self.poll_silence(cx));
        if self.state.phase() == Phase::Head {
            self.refused = Some(StatusCode::REQUEST_TIMEOUT);
        }
        // To hyper, reading nothing is the end of the stream, and hyper closes.
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.swallows(data) {
            return Poll::Ready(Ok(data.len()));
        }
        let outcome = Pin::new(&mut *self.stream.lock()).poll_write(cx, data);
        self.watch(outcome, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [head] = data
            && self.swallows(head)
        {
            return Poll::Ready(Ok(head.len()));
        }
        let outcome = Pin::new(&mut *self.stream.lock()).poll_write_vectored(cx, data);
        self.watch(outcome, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.lock().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut *self.stream.lock()).poll_flush(cx);
        self.watch(outcome, cx) // TLS has a buffer of its own
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.refused.is_some() {
            return Poll::Ready(Ok(())); // `finish` still has to send a response
        }
        let outcome = Pin::new(&mut *self.stream.lock()).poll_shutdown(cx);
        self.watch(outcome, cx)
    }
}

/// Returns the status of `head` if hyper wrote it to refuse a request. An error of this crate always has a body.
fn refused_status(head: &[u8]) -> Option<StatusCode> {
    let rest = head.strip_prefix(b"HTTP/1.1 4").or_else(|| head.strip_prefix(b"HTTP/1.0 4"))?;
    let empty = b"\r\ncontent-length: 0\r\n";
    let refused = head.ends_with(b"\r\n\r\n") && head.windows(empty.len()).any(|window| window == empty);
    StatusCode::from_bytes(&[b'4', *rest.first()?, *rest.get(1)?]).ok().filter(|_| refused)
}

/// Returns the response to a request whose head cannot be parsed, or did not arrive in time.
fn refusal(status: StatusCode) -> Vec<u8> {
    let body = ApiError::of_status(status).to_json();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nx-request-id: {}\r\n\
         connection: close\r\n\r\n",
        body.len(),
        uuid::Uuid::new_v4(),
    );
    [head.into_bytes(), body].concat()
}
