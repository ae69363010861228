//! What is left of a request's body when its response is ready.
//!
//! A handler need not read the body: the path may be unknown, or a parameter wrong. hyper then closes the connection
//! after a response that does not say so, and the caller's next request is lost. So the rest is read and discarded
//! first, within bounds, and where that fails the response says that the connection closes.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::EXPECT;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};

/// How much of a body is discarded. Beyond this the caller is better cut off.
const MAX_DISCARDED_BYTES: usize = 4 * 1024 * 1024;

/// How long discarding may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// What is left of a body.
pub(crate) enum Rest {
    /// Nothing: the next request follows.
    Nothing,
    /// More than is worth reading, or what cannot be read: the connection must close.
    Lost,
    /// Reads and discards the rest; whether the end was reached.
    Unread(Pin<Box<dyn Future<Output = bool> + Send>>),
}

/// Knows how far the body of a request was read.
pub(crate) struct Unread {
    state: Arc<Mutex<State>>,
    is_discardable: bool,
}

enum State {
    /// The body has a reader, or failed.
    Open,
    ReadToEnd,
    Dropped(Body),
}

impl Unread {
    /// Watches the body of `request`; `None` if it has none.
    pub(crate) fn watch(request: Request) -> (Request, Option<Self>) {
        if request.body().is_end_stream() {
            return (request, None);
        }
        let length = request.body().size_hint().lower(); // the Content-Length, if there is one
        // A caller that waits for `100 Continue` has sent nothing yet, and need not.
        let is_discardable = !request.headers().contains_key(EXPECT) && length <= MAX_DISCARDED_BYTES as u64;
        let state = Arc::new(Mutex::new(State::Open));
        let request = request.map(|body| Body::new(Watched { body, failed: false, state: Arc::clone(&state) }));
        (request, Some(Self { state, is_discardable }))
    }

    /// What is left before a response with `status` goes out.
    pub(crate) fn rest(self, status: StatusCode) -> Rest {
        let state = std::mem::replace(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner), State::Open);
        match state {
            State::ReadToEnd => Rest::Nothing,
            // A body that has timed out is not worth more time.
            State::Dropped(body) if self.is_discardable && status != StatusCode::REQUEST_TIMEOUT => {
                Rest::Unread(Box::pin(discard(body)))
            }
            State::Dropped(_) | State::Open => Rest::Lost,
        }
    }
}

/// Reads on for a while, keeping nothing; whether the end was reached.
async fn discard(mut body: Body) -> bool {
    let reading = async {
        let mut left_bytes = MAX_DISCARDED_BYTES;
        loop {
            match body.frame().await {
                None => return true,
                Some(Err(_)) => return false,
                Some(Ok(frame)) => match left_bytes.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                    Some(left) => left_bytes = left,
                    None => return false,
                },
            }
        }
    };
    tokio::time::timeout(DISCARD_TIMEOUT, reading).await.unwrap_or(false)
}

/// A body that notes its end, and is given back when it is dropped before.
struct Watched {
    body: Body,
    failed: bool,
    state: Arc<Mutex<State>>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            None => *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::ReadToEnd,
            Some(outcome) => self.failed |= outcome.is_err(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Open = *state
            && !self.failed
        {
            *state = match self.body.is_end_stream() {
                true => State::ReadToEnd,
                false => State::Dropped(std::mem::take(&mut self.body)),
            };
        }
    }
}
