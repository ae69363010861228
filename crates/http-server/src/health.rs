//! `GET /`, `/health`, `/livez` and `/readyz`.
//!
//! `/health` and `/livez` say that the process answers; whether it can do its work is `/readyz`'s to say. An
//! orchestrator restarts on the former and routes by the latter.

use std::sync::Arc;

use axum::Router;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::json_response;

/// How long a caller of a service that is not ready should wait: catching up is a matter of seconds.
pub const NOT_READY_RETRY_AFTER_S: u32 = 1;

/// The paths that are answered whatever state the server is in, and under whatever name it is called.
pub(crate) const HEALTH_PATHS: [&str; 3] = ["/health", "/livez", "/readyz"];

/// What knows whether the service can do its work. Asked on every `/readyz`, so it must answer at once.
pub trait Readiness: Send + Sync {
    /// How things stand now.
    fn report(&self) -> ReadyReport;
}

/// How ready a service is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReadyReport {
    /// Why it is not ready, each a short sentence; ready if there is none.
    pub reasons: Vec<String>,
    /// What else `/readyz` shows, ready or not. Names other than `status`, `error`, `code` and `reasons`.
    pub details: Map<String, Value>,
}

/// The three routes, for the service called `service` in `/health`'s answer.
pub fn health_routes(service: &'static str, readiness: Arc<dyn Readiness>) -> Router {
    let [health, livez, readyz] = HEALTH_PATHS;
    Router::new()
        .route(health, get(async move || json_response(StatusCode::OK, &Health { status: "healthy", service })))
        .route(livez, get(async || json_response(StatusCode::OK, &Alive { status: "alive" })))
        .route(readyz, get(async move || ready_response(&readiness.report())))
}

/// `GET /`, for the service called `service` in `version`: both, and its `links`, each a name and a path.
pub fn index_route(service: &'static str, version: &'static str, links: &[(&str, &str)]) -> Router {
    let links: Map<_, _> = links.iter().map(|(name, path)| ((*name).to_owned(), Value::from(*path))).collect();
    let index = Arc::new(Index { service, version, links });
    Router::new().route("/", get(async move || json_response(StatusCode::OK, &*index)))
}

#[derive(Serialize)]
struct Index {
    service: &'static str,
    version: &'static str,
    links: Map<String, Value>,
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    service: &'static str,
}

#[derive(Serialize)]
struct Alive {
    status: &'static str,
}

#[derive(Serialize)]
struct Ready<'a> {
    status: &'static str,
    #[serde(flatten)]
    details: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct NotReady<'a> {
    error: String,
    code: &'static str,
    status: &'static str,
    reasons: &'a [String],
    #[serde(flatten)]
    details: &'a Map<String, Value>,
}

fn ready_response(report: &ReadyReport) -> Response {
    let ReadyReport { reasons, details } = report;
    if reasons.is_empty() {
        return json_response(StatusCode::OK, &Ready { status: "ready", details });
    }
    let error = format!("not ready: {}", reasons.join("; "));
    let body = NotReady { error, code: "not_ready", status: "not_ready", reasons, details };
    let mut response = json_response(StatusCode::SERVICE_UNAVAILABLE, &body);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(NOT_READY_RETRY_AFTER_S));
    response
}
