//! What is left of a request's body when its answer is ready.
//!
//! A handler need not read the body: there may be no such path, or a parameter is wrong already. hyper then closes the
//! connection behind the answer without having said so, and the caller's next request on it is lost; or the answer itself
//! is, where the rest of the body arrives at a closed socket. So the rest is read and thrown away first, within bounds.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::EXPECT;
use hyper::body::{Frame, SizeHint};

use crate::body::{MAX_DISCARDED_BYTES, discard};

/// Where a body comes back to that was not read to its end.
pub(crate) struct Unread(Arc<Mutex<Option<Body>>>);

impl Unread {
    /// Watches over the body of `request`. `None` if it has none, or one that is not to be asked for: a caller that waits
    /// for `100 Continue` has sent nothing yet, and one that is far too large is better cut off.
    pub(crate) fn watch(request: Request) -> (Request, Option<Self>) {
        let length = request.body().size_hint().lower(); // the Content-Length, if there is one
        let unasked = request.headers().contains_key(EXPECT) || length > MAX_DISCARDED_BYTES as u64;
        if request.body().is_end_stream() || unasked {
            return (request, None);
        }
        let rest = Arc::default();
        let request = request.map(|body| Body::new(Watched { body, rest: Arc::clone(&rest) }));
        (request, Some(Self(rest)))
    }

    /// Reads what is left, before an answer with `status` goes out; `None` if nothing is.
    pub(crate) fn discard(self, status: StatusCode) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        // Whoever answers with these has read as much of the body as it was worth.
        if matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE) {
            return None;
        }
        let mut rest = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Box::pin(async move { discard(&mut rest).await }))
    }
}

/// A body that is given back when it is dropped too early.
struct Watched {
    body: Body,
    rest: Arc<Mutex<Option<Body>>>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
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
        if !self.body.is_end_stream() {
            let rest = std::mem::take(&mut self.body);
            *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
        }
    }
}
