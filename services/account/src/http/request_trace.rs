//! The extractor of a request's trace context: its `traceparent` header, or a new trace.

use std::convert::Infallible;
use std::str;

use account_events::TraceParent;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use uuid::Uuid;

/// The trace context that the events of a request carry.
pub(crate) struct RequestTrace(pub(crate) TraceParent);

impl<S: Sync> FromRequestParts<S> for RequestTrace {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let header = parts.headers.get("traceparent").and_then(|value| str::from_utf8(value.as_bytes()).ok());
        let trace = header.and_then(TraceParent::parse).unwrap_or_else(|| TraceParent {
            trace_id: Uuid::new_v4().as_u128(),
            parent_id: Uuid::new_v4().as_u64_pair().0,
            flags: 0,
        });
        Ok(Self(trace))
    }
}
