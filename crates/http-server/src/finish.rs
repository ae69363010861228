//! What every response gets, whoever made it, in one layer: its request id, a JSON form if it is an error, a log line,
//! and the rest of the request's body out of its way. A handler that panics answers 500 like any other fault of ours, and
//! the process goes on.
//!
//! One layer, written by hand, because it stands in the way of every request: each more would box a future.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::{debug, error, warn};

use crate::body::is_json;
use crate::cors::{CorsOrigin, cors_layer};
use crate::error::{APPLICATION_JSON, ApiError};
use crate::request_ids::{NameSource, RequestId, X_REQUEST_ID};
use crate::unread::Unread;

/// `router`, made to answer as every service here does. Call it last, with all routes in place.
///
/// `service` names the service in the logs. `cors` lets pages of other origins call it; without it `OPTIONS` is a
/// method like any other.
pub fn finish(router: Router, service: &'static str, cors: Option<CorsOrigin>) -> Router {
    let router = match cors {
        Some(origin) => router.layer(cors_layer(origin)),
        None => router,
    };
    router.layer(FinishLayer { service, names: Arc::new(NameSource::default()) })
}

#[derive(Clone)]
struct FinishLayer {
    service: &'static str,
    names: Arc<NameSource>,
}

impl<S> Layer<S> for FinishLayer {
    type Service = Finished<S>;

    fn layer(&self, inner: S) -> Finished<S> {
        Finished { inner, settings: self.clone() }
    }
}

#[derive(Clone)]
struct Finished<S> {
    inner: S,
    settings: FinishLayer,
}

impl<S> Service<Request> for Finished<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Finishing<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Finishing<S::Future> {
        let names = self.settings.names.names(request.headers());
        let request_id = names.request_id.clone();
        let (method, uri) = (request.method().clone(), request.uri().clone());
        request.extensions_mut().insert(names);
        let (request, unread) = Unread::watch(request);
        let service = self.settings.service;
        Finishing { response: self.inner.call(request), service, request_id, method, uri, unread, discarding: None }
    }
}

pin_project! {
    struct Finishing<F> {
        #[pin]
        response: F,
        service: &'static str,
        request_id: RequestId,
        method: Method,
        uri: Uri,
        unread: Option<Unread>,
        // The answer, while what is left of the body is thrown away.
        discarding: Option<(Response, Pin<Box<dyn Future<Output = ()> + Send>>)>,
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for Finishing<F> {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some((_, rest)) = this.discarding {
            ready!(rest.as_mut().poll(context));
        }
        if let Some((response, _)) = this.discarding.take() {
            return Poll::Ready(Ok(response));
        }
        // Nothing of ours is shared with the handler, and its future is not polled again after a panic.
        let response = match catch_unwind(AssertUnwindSafe(|| this.response.poll(context))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(response))) => response,
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().copied();
                let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
                error!(service = *this.service, request_id = %*this.request_id, panic = text, "a handler panicked");
                ApiError::internal().into_response()
            }
        };
        let mut response = with_json_error(response);
        response.headers_mut().insert(X_REQUEST_ID, this.request_id.header());
        log(this.service, this.request_id, this.method, this.uri, &response);
        if let Some(mut rest) = this.unread.take().and_then(|unread| unread.discard(response.status()))
            && rest.as_mut().poll(context).is_pending()
        {
            *this.discarding = Some((response, rest));
            return Poll::Pending;
        }
        Poll::Ready(Ok(response))
    }
}

/// `response`, with the standard error in place of its body if it is an error that no handler of ours worded.
fn with_json_error(mut response: Response) -> Response {
    let status = response.status();
    let worded = || response.headers().get(CONTENT_TYPE).is_some_and(|kind| is_json(kind.as_bytes()));
    if !(status.is_client_error() || status.is_server_error()) || worded() {
        return response;
    }
    *response.body_mut() = Body::from(ApiError::of_status(status).to_json());
    let headers = response.headers_mut(); // the others stay: `Allow`, for one
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
    headers.insert(CONTENT_TYPE, APPLICATION_JSON);
    response
}

fn log(service: &str, request_id: &RequestId, method: &Method, uri: &Uri, response: &Response) {
    let status = response.status().as_u16();
    // A 503 is an answer by design (catching up, overloaded, stopping): its cause is logged once, where it arises.
    if response.status().is_server_error() && response.status() != StatusCode::SERVICE_UNAVAILABLE {
        warn!(service, %request_id, %method, path = uri.path(), status, "request failed");
    } else {
        debug!(service, %request_id, %method, path = uri.path(), status, "request answered");
    }
}
