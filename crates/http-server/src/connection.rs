//! A TCP connection as hyper reads and writes it, with what hyper leaves undone.
//!
//! - The idle time and the time for a request's head are two limits. hyper has one timer for both, so hyper's timer is
//!   off and this one is used.
//! - A write that makes no progress ends the connection, so that a peer that stops reading does not hold it for ever.
//! - hyper refuses a request head that it cannot parse with an empty body. [`Connection`] swallows that response, and
//!   [`Connection::finish`] sends one in the standard form.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use crate::activity::{Activity, Phase};
use crate::error::ApiError;
use crate::server::ServeSettings;

/// How long a write may make no progress before the peer counts as gone.
const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an idle connection stays open after the server has begun to stop. A request that was on its way by then
/// arrives within a round trip and is answered.
const IDLE_DRAIN_TIME: Duration = Duration::from_millis(250);

/// How long the server reads and discards what a peer still sends after the last response. To close a socket with
/// unread bytes resets the connection, and the peer may lose the response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) struct Connection {
    stream: TcpStream,
    activity: Arc<Activity>,
    idle_timeout: Duration,
    header_read_timeout: Duration,
    /// One timer for the life of the connection: to move its deadline back costs neither an allocation nor a lock.
    timer: Option<Pin<Box<Sleep>>>,
    /// What the timer measures, and whether the server was stopping when it was set.
    timed: Option<(Phase, bool)>,
    /// Runs while a write makes no progress.
    stall: Option<Pin<Box<Sleep>>>,
    /// The status of the response that [`Connection::finish`] sends.
    refused: Option<StatusCode>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, activity: Arc<Activity>, settings: &ServeSettings) -> Self {
        let ServeSettings { idle_timeout, header_read_timeout, .. } = *settings;
        let (timer, timed, stall, refused) = (None, None, None, None);
        Self { stream, activity, idle_timeout, header_read_timeout, timer, timed, stall, refused }
    }

    /// Completes when the peer has been silent for too long. Called when there is nothing to read.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let phase = match self.activity.phase() {
            Phase::Request => return Poll::Pending, // a body's time is measured where the body is read
            Phase::Head => Phase::Head,
            Phase::Idle | Phase::Response => Phase::Idle,
        };
        let timed = (phase, self.activity.is_draining());
        if self.timed != Some(timed) {
            let now = Instant::now();
            let limit = match timed {
                (Phase::Head, _) => self.header_read_timeout,
                (_, true) => IDLE_DRAIN_TIME,
                (_, false) => self.idle_timeout,
            };
            if phase == Phase::Idle {
                self.activity.set_idle(now);
            }
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(now + limit),
                None => self.timer = Some(Box::pin(sleep_until(now + limit))),
            }
            self.timed = Some(timed);
        }
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(context),
            None => Poll::Pending,
        }
    }

    /// Passes on the outcome of a write, unless the write has made no progress for too long.
    fn watch<T>(&mut self, outcome: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stall = None;
            return outcome;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(WRITE_STALL_TIMEOUT)));
        ready!(stall.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, "the peer does not read")))
    }

    /// Whether `head` is a refusal that hyper wrote by itself. Notes its status.
    fn swallows(&mut self, head: &[u8]) -> bool {
        let status = refused_status(head);
        self.refused = self.refused.or(status);
        status.is_some()
    }

    /// Ends the connection once hyper is done with it: sends the response that is due, and lets the peer read the last
    /// one.
    pub(crate) async fn finish(mut self) -> io::Result<()> {
        if let Some(status) = self.refused {
            tracing::debug!(%status, "a request head was refused");
            timeout(WRITE_STALL_TIMEOUT, self.stream.write_all(&refusal(status))).await??;
        } else if !self.activity.lingers() {
            return Ok(());
        }
        self.activity.set_idle(Instant::now());
        self.stream.shutdown().await?;
        let mut scratch = [0; 4096];
        let discarding = async { while self.stream.read(&mut scratch).await.is_ok_and(|length| length > 0) {} };
        let _out_of_time = timeout(LINGER_TIMEOUT, discarding).await;
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if let Poll::Ready(outcome) = Pin::new(&mut self.stream).poll_read(cx, buffer) {
            match self.activity.phase() {
                Phase::Idle | Phase::Response if buffer.filled().len() > before => {
                    self.activity.set_phase(Phase::Head);
                    self.timed = None;
                }
                Phase::Request => self.timed = None,
                Phase::Idle | Phase::Head | Phase::Response => {}
            }
            return Poll::Ready(outcome);
        }
        ready!(self.poll_silence(cx));
        if self.activity.phase() == Phase::Head {
            self.refused = Some(StatusCode::REQUEST_TIMEOUT);
        }
        // hyper takes this for the end of the stream, and closes.
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.swallows(data) {
            return Poll::Ready(Ok(data.len()));
        }
        let outcome = Pin::new(&mut self.stream).poll_write(cx, data);
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
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.watch(outcome, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.refused.is_some() {
            return Poll::Ready(Ok(())); // `finish` has something to send yet
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The status of `head` if hyper made it to refuse a request: no error of this crate is without a body.
fn refused_status(head: &[u8]) -> Option<StatusCode> {
    let rest = head.strip_prefix(b"HTTP/1.1 4").or_else(|| head.strip_prefix(b"HTTP/1.0 4"))?;
    let empty = b"\r\ncontent-length: 0\r\n";
    let refused = head.ends_with(b"\r\n\r\n") && head.windows(empty.len()).any(|window| window == empty);
    StatusCode::from_bytes(&[b'4', *rest.first()?, *rest.get(1)?]).ok().filter(|_| refused)
}

/// The whole response to a request that cannot be parsed, or did not arrive in time.
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
