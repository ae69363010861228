//! The part of a request's body that no handler read.
//!
//! If a body has an unread rest, hyper closes the connection after the response without a `Connection: close`, and the
//! caller's next request is lost. So the server reads and discards the rest within bounds. If the rest exceeds the
//! bounds, the response gets a `Connection: close`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::EXPECT;
use axum::http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Frame, Incoming, SizeHint};
use parking_lot::Mutex;

/// The largest rest that is discarded. A caller that sends more loses the connection.
const MAX_DISCARDED_BYTES: usize = 4 * 1024 * 1024;

/// How long discarding may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// A second handle on the body that a handler reads.
pub(crate) struct Unread {
    body: SharedBody,
    is_discardable: bool,
}

#[derive(Clone)]
struct SharedBody(Arc<Mutex<State>>);

struct State {
    body: Incoming,
    /// Whether the end was reached, or an error that ended the body; `None` before.
    is_complete: Option<bool>,
}

impl Unread {
    /// Returns `request` for a handler, and the handle; no handle if the request has no body.
    pub(crate) fn watch(request: Request<Incoming>) -> (Request<Body>, Option<Self>) {
        if request.body().is_end_stream() {
            return (request.map(|_| Body::empty()), None);
        }
        let length = request.body().size_hint().lower(); // the Content-Length, if there is one
        // A caller that waits for `100 Continue` has sent nothing yet.
        let is_discardable = !request.headers().contains_key(EXPECT) && length <= MAX_DISCARDED_BYTES as u64;
        let (parts, body) = request.into_parts();
        let body = SharedBody(Arc::new(Mutex::new(State { body, is_complete: None })));
        let request = Request::from_parts(parts, Body::new(body.clone()));
        (request, Some(Self { body, is_discardable }))
    }

    /// Reads and discards the rest. Returns whether the body was read to its end. `status` is the response's: a body that
    /// timed out gets no more time.
    pub(crate) async fn discard(self, status: StatusCode) -> bool {
        let is_complete = self.body.0.lock().is_complete;
        match is_complete {
            Some(is_complete) => is_complete,
            None if self.body.is_end_stream() => true,
            None if !self.is_discardable || status == StatusCode::REQUEST_TIMEOUT => false,
            None => {
                let mut rest = Limited::new(self.body, MAX_DISCARDED_BYTES);
                let reading = async {
                    while let Some(frame) = rest.frame().await {
                        if frame.is_err() {
                            return false;
                        }
                    }
                    true
                };
                Box::pin(tokio::time::timeout(DISCARD_TIMEOUT, reading)).await.unwrap_or(false)
            }
        }
    }
}

impl HttpBody for SharedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut state = self.0.lock();
        let frame = ready!(Pin::new(&mut state.body).poll_frame(context));
        match &frame {
            None => state.is_complete = Some(true),
            Some(Err(_)) => state.is_complete = Some(false),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().body.size_hint()
    }
}
