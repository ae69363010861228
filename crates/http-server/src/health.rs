//! `GET /`, `/health`, `/livez` and `/readyz`.
//!
//! `/health` and `/livez` show that the process answers: an orchestrator restarts the process if they fail. `/readyz` shows
//! whether the service can do its work: an orchestrator sends requests only to services that are ready.

use std::collections::BTreeMap;
use std::sync::Arc;

use access::{Access, Caller, Scope};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::openapi::{Api, Content, Endpoints, OPENAPI_PATH, Operation};
use crate::settings::HttpConfig;

/// `Retry-After` of a service that is not ready, in seconds: catching up takes seconds.
pub const NOT_READY_RETRY_AFTER_S: u32 = 1;

/// The group of these endpoints in the document.
const TAG: &str = "Service";

/// The paths that are answered when no connection is left, and under any `Host`.
pub(crate) const HEALTH_PATHS: [&str; 3] = ["/health", "/livez", READYZ];

pub(crate) const READYZ: &str = "/readyz";

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

impl ReadyReport {
    /// Adds a warning, if there is one: the service is ready all the same.
    pub fn warn(&mut self, warning: Option<String>) {
        let Some(warning) = warning else { return };
        if let Value::Array(warnings) = self.details.entry("warnings").or_insert_with(|| json!([])) {
            warnings.push(warning.into());
        }
    }
}

/// Returns the three health endpoints of `service`. Where callers are authenticated, only those with the scope `admin` see the details
/// of `/readyz`.
pub fn health_endpoints(service: &'static str, readiness: Arc<dyn Readiness>, config: &HttpConfig) -> Endpoints {
    let HttpConfig { authenticator, audit_file, tls, .. } = config.clone();
    let [health, livez, readyz] = HEALTH_PATHS;
    let ready = async move |caller: Option<Extension<Caller>>| {
        let mut report = readiness.report();
        report.warn(tls.as_ref().and_then(|tls| tls.warning()));
        report.warn(audit_file.as_ref().and_then(|file| file.warning()));
        if let Some(authenticator) = &authenticator {
            report.warn(authenticator.warning());
            if !caller.is_some_and(|caller| caller.scopes.allow(Scope::Admin)) {
                report.details.clear();
            }
        }
        ready_response(&report)
    };
    Endpoints::default()
        .get(
            health,
            Access::Open,
            async move || Json(Health { status: "healthy", service: Some(service) }),
            health_operation,
        )
        .get(livez, Access::Open, async || Json(Health { status: "alive", service: None }), livez_operation)
        .get(readyz, Access::Open, ready, readyz_operation)
}

/// Returns the endpoint `/`, which shows the service, its version and its links.
pub(crate) fn index_endpoint(api: &Api) -> Endpoints {
    let links = [("docs", "/docs"), ("openapi", OPENAPI_PATH), ("health", "/health"), ("readyz", "/readyz")];
    let links = links.iter().chain(api.links).copied().collect();
    let index = Index { service: api.service, version: api.version, links };
    Endpoints::default().get("/", Access::Open, async move || Json(index.clone()), index_operation)
}

fn index_operation() -> Operation {
    let properties = json!({
        "service": { "type": "string" }, "version": { "type": "string" },
        "links": { "type": "object", "additionalProperties": { "type": "string" } },
    });
    let schema = json!({ "type": "object", "required": ["service", "version", "links"], "properties": properties });
    let example = json!({ "service": "account-service", "version": "0.1.0", "links": { "docs": "/docs" } });
    Operation::new("get_index", TAG, "Returns the service's name, version and links.").answer(
        200,
        "The service.",
        Content::inline(schema, example),
        &[],
    )
}

fn health_operation() -> Operation {
    let properties = json!({ "status": { "const": "healthy" }, "service": { "type": "string" } });
    let schema = json!({ "type": "object", "required": ["status", "service"], "properties": properties });
    let content = Content::inline(schema, json!({ "status": "healthy", "service": "account-service" }));
    Operation::new("get_health", TAG, "Tells whether the process answers.").answer(200, "It does.", content, &[])
}

fn livez_operation() -> Operation {
    let properties = json!({ "status": { "const": "alive" } });
    let schema = json!({ "type": "object", "required": ["status"], "properties": properties });
    let content = Content::inline(schema, json!({ "status": "alive" }));
    Operation::new("get_livez", TAG, "Tells whether the process answers.").answer(200, "It does.", content, &[])
}

fn readyz_operation() -> Operation {
    let text = json!({ "type": "string" });
    let (properties, required) = (json!({ "status": { "const": "ready" } }), ["status"]);
    let ready = json!({ "type": "object", "required": required, "properties": properties });
    let reasons = json!({ "type": "array", "items": text, "minItems": 1 });
    let (status, code) = (json!({ "const": "not_ready" }), json!({ "enum": ["not_ready"] }));
    let properties = json!({ "status": status, "code": code, "error": text, "reasons": reasons });
    let required = ["error", "code", "status", "reasons"];
    let unready = json!({ "type": "object", "required": required, "properties": properties });
    let error = "not ready: the service is stopping";
    let reasons = ["the service is stopping"];
    let example = json!({ "error": error, "code": "not_ready", "status": "not_ready", "reasons": reasons });
    Operation::new("get_readyz", TAG, "Tells whether the service can do its work.")
        .description("Further fields are for operators: docs/operations/troubleshoot.md explains them.")
        .answer(200, "It can.", Content::inline(ready, json!({ "status": "ready" })), &[])
        .answer(503, "It cannot.", Content::inline(unready, example), &["Retry-After"])
}

#[derive(Clone, Serialize)]
struct Index {
    service: &'static str,
    version: &'static str,
    links: BTreeMap<&'static str, &'static str>,
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
