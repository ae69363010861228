//! The steps that every request passes before the router, and every response after it.
//!
//! The steps are one async function, not a stack of tower layers: each layer on a router boxes a future for each request.

use std::any::Any;
use std::convert::Infallible;
use std::future::ready;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use access::{Access, Authenticator, Caller};
use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, TRANSFER_ENCODING};
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use tower::{Layer as _, Service as _, service_fn};
use tracing::{debug, error, warn};

use crate::audit::{Audit, Audited, ErrorCode};
use crate::authentication::authenticate;
use crate::body::is_json;
use crate::conditional::if_none_match;
use crate::cors::cors_layer;
use crate::error::{APPLICATION_JSON, ApiError};
use crate::guard::Guard;
use crate::health::{HEALTH_PATHS, READYZ};
use crate::limits::{Admitted, Limits, Refused};
use crate::request_id::{X_REQUEST_ID, request_id};
use crate::routes::Routes;
use crate::settings::HttpConfig;
use crate::slots::client_of;
use crate::tls::Tls;
use crate::unread::Unread;

/// A router together with the steps that every request and every response pass. [`serve`](crate::serve()) runs it.
#[derive(Debug)]
pub struct App {
    routes: Routes,
    service: &'static str,
    guard: Guard,
    authenticator: Option<Arc<Authenticator>>,
    limits: Option<Limits>,
    /// The certificate of HTTPS; `None` for plain HTTP.
    pub(crate) tls: Option<Arc<Tls>>,
    audit: Option<Audit>,
}

/// Completes `routes`.
///
/// `service` is the name of the service in the logs. `address` is the address that the service listens on: on loopback without
/// authentication, a `Host` must be local or one of the configuration's.
pub fn finish(routes: impl Into<Routes>, service: &'static str, config: &HttpConfig, address: IpAddr) -> App {
    let HttpConfig { cors, allowed_hosts, authenticator, tls, audit_file, address_limits, caller_limits, .. } =
        config.clone();
    let hosts = (authenticator.is_none() && address.to_canonical().is_loopback()).then_some(allowed_hosts);
    let mut routes = routes.into();
    if let Some(origin) = cors.clone() {
        routes.router = routes.router.layer(cors_layer(origin));
    }
    let limits = Limits::new(address_limits, caller_limits);
    let is_audited = authenticator.is_some() || audit_file.is_some();
    let audit = is_audited.then_some(Audit { service, file: audit_file });
    App { routes, service, guard: Guard { hosts, cors }, authenticator, limits, tls, audit }
}

impl App {
    /// Answers `request`. `is_spare` says that the request's connection is beyond the limit: only health checks are
    /// answered on such a connection. `client` is the address of its peer.
    pub(crate) async fn answer(&self, request: Request<Incoming>, is_spare: bool, client: IpAddr) -> Response {
        let request_id = request_id(request.headers());
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let if_none_match = if_none_match(request.headers());
        let (caller, admitted) = match self.guard.check(&request, is_spare) {
            Ok(()) => self.admit(&request, client).await,
            Err(error) => (None, Err(error.into())),
        };
        let name = caller.as_ref().map(|caller| Arc::clone(&caller.name));
        let is_audited = self.routes.access(&method, uri.path()).is_some() && is_attributable(&admitted, &name);
        let (mut request, unread) = Unread::watch(request);
        let mut response = match admitted {
            Ok(admitted) => {
                if let Some(caller) = caller {
                    request.extensions_mut().insert(caller);
                }
                let mut response = self.route(request, &request_id).await;
                admitted.add_headers(response.headers_mut());
                response
            }
            Err(refused) => self.refuse(refused, request).await,
        };
        let is_found = matches!(method, Method::GET | Method::HEAD) && response.status() == StatusCode::OK;
        if is_found && if_none_match.is_some_and(|tags| tags.match_weakly(response.headers().get(ETAG))) {
            response = not_modified(response);
        }
        response.headers_mut().insert(X_REQUEST_ID, request_id.clone());
        self.log(&request_id, &method, &uri, response.status());
        if let Some(audit) = self.audit.as_ref().filter(|_| is_audited) {
            let (method, uri, request_id) = (&method, &uri, &request_id);
            audit.record(&Audited { caller: name, method, uri, request_id, client }, &response);
        }
        // A connection without a place closes after its response.
        if let Some(unread) = unread.filter(|_| !is_spare)
            && !unread.discard(response.status()).await
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Returns the caller of `request` where callers are authenticated, and whether the caller may send it.
    async fn caller<B>(&self, request: &Request<B>) -> (Option<Caller>, Result<(), ApiError>) {
        let Some(authenticator) = &self.authenticator else { return (None, Ok(())) };
        let path = request.uri().path();
        // No route answers a path or a method that is unknown, so nothing is there to protect.
        let access = self.routes.access(request.method(), path).unwrap_or(Access::Open);
        match access {
            Access::Needs(_) => authenticate(authenticator, access, request.headers()).await,
            // Details are for callers. A health check does not wait for an issuer of tokens.
            Access::Open if path == READYZ => {
                let known = authenticate(authenticator, access, request.headers()).now_or_never();
                known.unwrap_or((None, Ok(())))
            }
            Access::Open => (None, Ok(())),
        }
    }

    /// Returns the caller of `request`, and whether the request is allowed and within the limits. Health checks are not limited.
    async fn admit<B>(&self, request: &Request<B>, client: IpAddr) -> (Option<Caller>, Result<Admitted, Refused>) {
        let limits = self.limits.as_ref().filter(|_| !HEALTH_PATHS.contains(&request.uri().path()));
        let admitted = match limits.map(|limits| limits.admit(client_of(client))).transpose() {
            Ok(admitted) => admitted.unwrap_or_default(),
            Err(refused) => return (None, Err(refused)),
        };
        let (caller, allowed) = self.caller(request).await;
        let admitted = match (allowed, limits, &caller) {
            (Err(error), ..) => Err(error.into()),
            (Ok(()), Some(limits), Some(caller)) => limits.admit_caller(&caller.name, admitted),
            (Ok(()), ..) => Ok(admitted),
        };
        (caller, admitted)
    }

    async fn route(&self, request: Request<Body>, request_id: &HeaderValue) -> Response {
        // The router shares no state with this function, and its future is not polled again after a panic.
        match AssertUnwindSafe(self.routes.router.clone().call(request)).catch_unwind().await {
            Ok(Ok(response)) => with_json_error(response),
            Err(panic) => {
                let text = panic_text(&*panic);
                error!(service = self.service, ?request_id, panic = text, "a handler panicked");
                ApiError::of_status(StatusCode::INTERNAL_SERVER_ERROR).into_response()
            }
        }
    }

    /// Answers `request` with a refusal, and with the CORS headers, so that a page of an allowed origin can read it.
    async fn refuse(&self, refused: Refused, request: Request<Body>) -> Response {
        let mut response = refused.error.clone().into_response();
        refused.add_headers(response.headers_mut());
        let Some(origin) = self.guard.cors.clone() else { return response };
        let mut response = Some(response);
        let answer = service_fn(|_| ready(Ok::<_, Infallible>(response.take().unwrap_or_default())));
        match cors_layer(origin).layer(answer).call(request).await {
            Ok(response) => response,
        }
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

/// Whether a request is done, or its named caller is not allowed to. Other refusals are not in the audit: anyone could fill it with them.
fn is_attributable(admitted: &Result<Admitted, Refused>, name: &Option<Arc<str>>) -> bool {
    match admitted {
        Ok(_) => true,
        Err(refused) => name.is_some() && refused.error.status == StatusCode::FORBIDDEN,
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
    let error = ApiError::of_status(status);
    response.extensions_mut().insert(ErrorCode(error.code));
    *response.body_mut() = Body::from(error.to_json());
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
    headers.insert(CONTENT_TYPE, APPLICATION_JSON);
    response
}
