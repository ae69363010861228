//! The extractor of a request's trace context.

use account_events::TraceParent;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use http_server::ApiError;

/// The trace context that the events of a request carry.
pub(crate) struct RequestTrace(pub(crate) TraceParent);

impl<S: Sync> FromRequestParts<S> for RequestTrace {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let trace = http_server::TraceParent::from_request_parts(parts, state).await?;
        let http_server::TraceParent { trace_id, parent_id, flags } = trace;
        Ok(Self(TraceParent { trace_id, parent_id, flags }))
    }
}
