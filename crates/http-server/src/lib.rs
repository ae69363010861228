//! HTTP plumbing with no domain in it: what a service needs between a TCP listener and its handlers.
//!
//! - [`serve`] runs a router on a listener until told to stop, within bounds.
//! - [`finish()`] makes a router answer as every service here does: JSON errors, request ids, CORS.
//! - [`JsonBody`] and [`QueryParams`] read what comes in; [`ApiError`] and [`json_response`] are what goes out.
//!
//! Invariants: every answer is JSON, an error is `{"error", "code"}`, and every wait and every size has a named bound.

mod activity;
mod body;
mod body_error;
mod conditional;
mod connection;
mod cors;
mod error;
mod finish;
mod guard;
mod health;
mod paging;
mod places;
mod query;
mod request_ids;
mod server;
mod settings;
mod store_error;
mod unread;

pub use body::{BODY_READ_TIMEOUT, JsonBody, MAX_BODY_BYTES};
pub use conditional::{Conditions, Versions, etag, if_none_match};
pub use cors::CorsOrigin;
pub use error::{APPLICATION_JSON, ApiError, json_response};
pub use finish::finish;
pub use guard::AllowedHosts;
pub use health::{NOT_READY_RETRY_AFTER_S, Readiness, ReadyReport, health_routes, index_route};
pub use paging::{DEFAULT_LIMIT, MAX_LIMIT, MIN_LIMIT, parse_limit};
pub use query::QueryParams;
pub use request_ids::{RequestId, RequestNames, TRACEPARENT, TraceParent, X_REQUEST_ID};
pub use server::{
    DRAIN_TIMEOUT, HEADER_READ_TIMEOUT, IDLE_TIMEOUT, MAX_BUFFER_BYTES, MAX_CONNECTIONS, SPARE_CONNECTIONS,
    ServeSettings, serve,
};
pub use settings::{HttpArgs, HttpConfig};
