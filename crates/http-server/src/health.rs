//! `GET /`, `/health`, `/livez` and `/readyz`.
//!
//! `/health` and `/livez` show that the process answers: an orchestrator restarts the process if they fail. `/readyz` shows
//! whether the service can do its work: an orchestrator sends requests only to services that are ready.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// `Retry-After` of a service that is not ready, in seconds: catching up takes seconds.
pub const NOT_READY_RETRY_AFTER_S: u32 = 1;

/// The paths that are answered when no connection is left, and under any `Host`.
pub(crate) const HEALTH_PATHS: [&str; 3] = ["/health", "/livez", "/readyz"];

/// Tells whether a service can do its work. Called for every `/readyz`, so it must not block.
pub trait Readiness: Send + Sync {
    /// Returns the present state.
    fn report(&self) -> ReadyReport;
}

/// The state that `/readyz` shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReadyReport {
    /// Why the service is not ready, each a short sentence. The service is ready if there are none.
    pub reasons: Vec<String>,
    /// Further fields of the response. Their names are not `status`, `error`, `code` or `reasons`.
    pub details: Map<String, Value>,
}

/// Returns the three health routes of `service`.
pub fn health_routes(service: &'static str, readiness: Arc<dyn Readiness>) -> Router {
    let [health, livez, readyz] = HEALTH_PATHS;
    Router::new()
        .route(health, get(async move || Json(Health { status: "healthy", service: Some(service) })))
        .route(livez, get(async || Json(Health { status: "alive", service: None })))
        .route(readyz, get(async move || ready_response(&readiness.report())))
}

/// Returns the route `/`, which shows `service`, its `version` and the paths of its health.
pub fn index_route(service: &'static str, version: &'static str) -> Router {
    let links = json!({ "health": "/health", "readyz": "/readyz" });
    let index = Index { service, version, links };
    Router::new().route("/", get(async move || Json(index.clone())))
}

#[derive(Clone, Serialize)]
struct Index {
    service: &'static str,
    version: &'static str,
    links: Value,
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'static str>,
}

#[derive(Serialize)]
struct Ready<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    status: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    reasons: &'a [String],
    #[serde(flatten)]
    details: &'a Map<String, Value>,
}

fn ready_response(ReadyReport { reasons, details }: &ReadyReport) -> Response {
    if reasons.is_empty() {
        return Json(Ready { error: None, code: None, status: "ready", reasons, details }).into_response();
    }
    let (error, code) = (Some(format!("not ready: {}", reasons.join("; "))), Some("not_ready"));
    let body = Json(Ready { error, code, status: "not_ready", reasons, details });
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, NOT_READY_RETRY_AFTER_S)], body).into_response()
}
