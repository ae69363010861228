//! The steps that every request passes before the router, and every response after it.
//!
//! The steps are one async function, not a stack of tower layers: each layer on a router boxes a future for each request.

use std::any::Any;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, TRANSFER_ENCODING};
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use tower::Service as _;
use tracing::{debug, error, warn};

use crate::body::is_json;
use crate::conditional::if_none_match;
use crate::cors::cors_layer;
use crate::error::{APPLICATION_JSON, ApiError};
use crate::guard::Guard;
use crate::request_id::{X_REQUEST_ID, request_id};
use crate::settings::HttpConfig;
use crate::unread::Unread;

/// A router together with the steps that every request and every response pass. [`serve`](crate::serve()) runs it.
#[derive(Debug)]
pub struct App {
    router: Router,
    service: &'static str,
    guard: Guard,
}

/// Completes `router`, which must have all its routes.
///
/// `service` is the name of the service in the logs. `address` is the address that the service listens on: on loopback,
/// a `Host` must be local or one of the configuration's.
pub fn finish(router: Router, service: &'static str, config: &HttpConfig, address: IpAddr) -> App {
    let HttpConfig { cors, allowed_hosts, .. } = config.clone();
    let hosts = address.to_canonical().is_loopback().then_some(allowed_hosts);
    let router = match cors.clone() {
        Some(origin) => router.layer(cors_layer(origin)),
        None => router,
    };
    App { router, service, guard: Guard { hosts, cors } }
}

impl App {
    /// Answers `request`. `is_spare` says that the request's connection is beyond the limit: only health checks are
    /// answered on such a connection.
    pub(crate) async fn answer(&self, request: Request<Incoming>, is_spare: bool) -> Response {
        let request_id = request_id(request.headers());
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let if_none_match = if_none_match(request.headers());
        let checked = self.guard.check(&request, is_spare);
        let (request, unread) = Unread::watch(request);
        let mut response = match checked {
            // The router shares no state with this function, and its future is not polled again after a panic.
            Ok(()) => match AssertUnwindSafe(self.router.clone().call(request)).catch_unwind().await {
                Ok(Ok(response)) => with_json_error(response),
                Err(panic) => {
                    let text = panic_text(&*panic);
                    error!(service = self.service, ?request_id, panic = text, "a handler panicked");
                    ApiError::of_status(StatusCode::INTERNAL_SERVER_ERROR).into_response()
                }
            },
            Err(error) => error.into_response(),
        };
        let is_found = matches!(method, Method::GET | Method::HEAD) && response.status() == StatusCode::OK;
        if is_found && if_none_match.is_some_and(|tags| tags.match_weakly(response.headers().get(ETAG))) {
            response = not_modified(response);
        }
        response.headers_mut().insert(X_REQUEST_ID, request_id.clone());
        self.log(&request_id, &method, &uri, response.status());
        // A connection without a place closes after its response.
        if let Some(unread) = unread.filter(|_| !is_spare)
            && !unread.discard(response.status()).await
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn log(&self, request_id: &HeaderValue, method: &Method, uri: &Uri, status: StatusCode) {
        let (service, path) = (self.service, uri.path());
        let request_id = request_id.to_str().unwrap_or_default();
        // The cause of a 503 (catching up, overloaded, stopping) is logged where it arises, once.
        if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
            warn!(service, request_id, %method, path, status = status.as_u16(), "request failed");
        } else {
            debug!(service, request_id, %method, path, status = status.as_u16(), "request answered");
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

/// Returns the 304 that stands for `response`: the same headers, except those that describe a body.
fn not_modified(mut response: Response) -> Response {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.body_mut() = Body::empty();
    for name in [CONTENT_LENGTH, CONTENT_TYPE] {
        response.headers_mut().remove(name);
    }
    response
}

/// Replaces the body of an error that is not JSON, such as axum's own 404, by the standard error. Other headers stay.
fn with_json_error(mut response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.headers().get(CONTENT_TYPE).is_some_and(|kind| is_json(kind.as_bytes())) {
        return response;
    }
    *response.body_mut() = Body::from(ApiError::of_status(status).to_json());
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
    headers.insert(CONTENT_TYPE, APPLICATION_JSON);
    response
}
