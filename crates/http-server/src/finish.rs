//! What every request and every response pass, in one layer: [`Guard`] refuses the request; the response gets its
//! request id, a JSON form if it is an error, 304 in place of what the caller has already, a log line, and the rest of
//! the request's body out of its way. A handler that panics is answered 500, and the process goes on.
//!
//! One layer, written by hand, because it is on the path of every request: each further layer would box a future.

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, TRANSFER_ENCODING};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::{debug, error, warn};

use crate::body::is_json;
use crate::conditional::{Versions, if_none_match};
use crate::cors::cors_layer;
use crate::error::{APPLICATION_JSON, ApiError};
use crate::guard::{Guard, Overloaded};
use crate::request_ids::{NameSource, RequestId, X_REQUEST_ID};
use crate::settings::HttpConfig;
use crate::unread::{Rest, Unread};

/// `router`, made to answer as every service here does. Call it last, with all routes in place.
///
/// `service` names the service in the logs, and `address` is where it listens: on loopback nobody is asked who they are,
/// so a `Host` must be local or configured. Without CORS `OPTIONS` is a method like any other.
pub fn finish(router: Router, service: &'static str, config: &HttpConfig, address: IpAddr) -> Router {
    let HttpConfig { cors, allowed_hosts, .. } = config.clone();
    let hosts = address.to_canonical().is_loopback().then_some(allowed_hosts);
    let router = match cors.clone() {
        Some(origin) => router.layer(cors_layer(origin)),
        None => router,
    };
    let guard = Arc::new(Guard { hosts, cors });
    router.layer(FinishLayer { service, names: Arc::new(NameSource::default()), guard })
}

#[derive(Clone)]
struct FinishLayer {
    service: &'static str,
    names: Arc<NameSource>,
    guard: Arc<Guard>,
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
        let checked = self.settings.guard.check(&request);
        let if_none_match = if_none_match(request.headers());
        request.extensions_mut().insert(names);
        let is_overloaded = request.extensions().get::<Overloaded>().is_some();
        // A connection without a place is not worth the time; it closes anyway.
        let (request, unread) = if is_overloaded { (request, None) } else { Unread::watch(request) };
        let service = self.settings.service;
        let (response, refusal) = match checked {
            Ok(()) => (Some(self.inner.call(request)), None),
            Err(error) => (None, Some(error)),
        };
        Finishing { response, refusal, service, request_id, method, uri, if_none_match, unread, discarding: None }
    }
}

pin_project! {
    struct Finishing<F> {
        // `None` where the request was refused.
        #[pin]
        response: Option<F>,
        refusal: Option<ApiError>,
        service: &'static str,
        request_id: RequestId,
        method: Method,
        uri: Uri,
        if_none_match: Option<Versions>,
        unread: Option<Unread>,
        // The response, while the rest of the body is discarded.
        discarding: Option<(Response, Pin<Box<dyn Future<Output = bool> + Send>>)>,
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for Finishing<F> {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some((_, rest)) = this.discarding {
            let is_complete = ready!(rest.as_mut().poll(context));
            if let Some((mut response, _)) = this.discarding.take() {
                say_close_unless(is_complete, &mut response);
                return Poll::Ready(Ok(response));
            }
        }
        // Nothing of ours is shared with the handler, and its future is not polled again after a panic.
        let poll = || match this.response.as_pin_mut() {
            Some(response) => response.poll(context),
            None => Poll::Ready(Ok(this.refusal.take().unwrap_or_else(ApiError::internal).into_response())),
        };
        let response = match catch_unwind(AssertUnwindSafe(poll)) {
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
        let is_read = matches!(*this.method, Method::GET | Method::HEAD) && response.status() == StatusCode::OK;
        if is_read && this.if_none_match.take().is_some_and(|had| had.contains_etag(response.headers().get(ETAG))) {
            response = not_modified(response);
        }
        response.headers_mut().insert(X_REQUEST_ID, this.request_id.header());
        log(this.service, this.request_id, this.method, this.uri, &response);
        match this.unread.take().map_or(Rest::Nothing, |unread| unread.rest(response.status())) {
            Rest::Nothing => {}
            Rest::Lost => say_close_unless(false, &mut response),
            Rest::Unread(mut rest) => match rest.as_mut().poll(context) {
                Poll::Ready(is_complete) => say_close_unless(is_complete, &mut response),
                Poll::Pending => {
                    *this.discarding = Some((response, rest));
                    return Poll::Pending;
                }
            },
        }
        Poll::Ready(Ok(response))
    }
}

/// Has `response` say that the connection closes, unless the request was read to its end: hyper closes it then.
fn say_close_unless(is_complete: bool, response: &mut Response) {
    if !is_complete {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The 304 that stands for `response`: its headers without those of a body.
fn not_modified(mut response: Response) -> Response {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.body_mut() = Body::empty();
    for name in [CONTENT_LENGTH, CONTENT_TYPE] {
        response.headers_mut().remove(name);
    }
    response
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
