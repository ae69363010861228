//! A TCP connection as hyper is given it, with the two things hyper leaves undone.
//!
//! - A peer that stops reading would hold its connection for ever: a write that makes no headway is given up.
//! - hyper refuses a request head it cannot parse with an empty body, before any layer of ours. Here that answer is
//!   replaced by one in our own form.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::StatusCode;
use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use crate::error::ApiError;

/// How long a write may stand still before the peer is taken for gone.
const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// After a refusal, what the peer still sends is read for this long: closing on unread bytes would reset the connection
/// under the answer.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// How much is read while lingering.
const LINGER_BYTES: usize = 1024 * 1024;

pub(crate) struct Connection {
    stream: TcpStream,
    /// Runs while a write stands still.
    stall: Option<Pin<Box<Sleep>>>,
    /// What is left to send of the answer that stands for hyper's own.
    refusal: Option<Bytes>,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, stall: None, refusal: None, linger: None }
    }

    /// Passes on what a write came to, unless it has stood still for too long.
    fn watch<T>(&mut self, outcome: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stall = None;
            return outcome;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(WRITE_STALL_TIMEOUT)));
        ready!(stall.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, "the peer does not read")))
    }

    /// Puts our answer in the place of `head` if that is hyper's own refusal.
    fn replaces(&mut self, head: &[u8]) -> bool {
        let Some(status) = refused_status(head) else { return false };
        tracing::debug!(%status, "a request head was refused");
        self.refusal = Some(refusal(status));
        true
    }

    fn poll_send_refusal(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.refusal.as_mut().filter(|rest| rest.has_remaining()) {
            let outcome = Pin::new(&mut self.stream).poll_write(context, rest);
            if let Poll::Ready(Ok(sent)) = outcome {
                rest.advance(sent);
            }
            ready!(self.watch(outcome, context))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (timer, left) = self.linger.get_or_insert_with(|| (Box::pin(sleep(LINGER_TIMEOUT)), LINGER_BYTES));
        loop {
            if *left == 0 || timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            let mut scratch = [0; 4096];
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => *left = left.saturating_sub(buffer.filled().len()),
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.replaces(data) {
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
            && self.replaces(head)
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
        ready!(self.poll_send_refusal(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send_refusal(cx))?;
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        if self.refusal.is_some() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

/// The status of `head` if it is an error of hyper's making: no error of ours is without a body.
fn refused_status(head: &[u8]) -> Option<StatusCode> {
    let rest = head.strip_prefix(b"HTTP/1.1 4")?;
    let empty = b"\r\ncontent-length: 0\r\n";
    let refused = head.ends_with(b"\r\n\r\n") && head.windows(empty.len()).any(|window| window == empty);
    StatusCode::from_bytes(&[b'4', *rest.first()?, *rest.get(1)?]).ok().filter(|_| refused)
}

/// The whole answer to a request that cannot be parsed.
fn refusal(status: StatusCode) -> Bytes {
    let body = ApiError::of_status(status).to_json();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nx-request-id: {}\r\n\
         connection: close\r\n\r\n",
        body.len(),
        uuid::Uuid::new_v4(),
    );
    [head.into_bytes(), body].concat().into()
}
