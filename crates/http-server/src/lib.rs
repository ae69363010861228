//! HTTP plumbing without a domain: the layer between a TCP listener and a service's handlers.
//!
//! - [`serve`] runs an [`App`] on a listener until shutdown, within bounds.
//! - [`finish()`] makes an [`App`] of a router: JSON errors, request ids, CORS, checks of hosts and origins, authentication.
//! - [`JsonBody`] and [`QueryParams`] parse requests; [`ApiError`] and [`Page`] are responses.
//!
//! Invariants: every response is JSON, an error is `{"error", "code"}`, and every wait and every size has a named bound.

mod audit;
mod audit_file;
mod authentication;
mod body;
mod body_error;
mod conditional;
mod connection;
mod connection_state;
mod cors;
mod docs_page;
mod error;
mod finish;
mod guard;
mod health;
mod idempotency;
mod limits;
mod lines;
mod openapi;
mod paging;
mod peer;
mod prefer;
mod query;
mod request_id;
mod routes;
mod scans;
mod server;
mod settings;
mod slots;
mod stream;
mod tls;
mod unread;

pub use audit_file::{AuditError, AuditFile};
pub use authentication::CallerName;
pub use body::{BODY_READ_TIMEOUT, JsonBody, MAX_BODY_BYTES};
pub use conditional::{EntityTags, etag, if_match, if_none_match};
pub use cors::CorsOrigin;
pub use error::{APPLICATION_JSON, ApiError};
pub use finish::{App, finish};
pub use guard::AllowedHosts;
pub use health::{NOT_READY_RETRY_AFTER_S, Readiness, ReadyReport, health_endpoints};
pub use idempotency::{Idempotency, IdempotencyKey, KeyedRequest, with_replay_header};
pub use limits::ClientLimits;
pub use lines::{LineSender, body_of, lines};
pub use openapi::{Api, Content, Endpoints, Operation};
pub use paging::{DEFAULT_LIMIT, MAX_LIMIT, MIN_LIMIT, Page, parse_limit};
pub use peer::Peer;
pub use prefer::{ACCOUNT_VERSION, PREFER, PREFERENCE_APPLIED, prefer_wait};
pub use query::QueryParams;
pub use routes::Routes;
pub use scans::{ScanPermit, Scans};
pub use server::{
    DRAIN_TIMEOUT, HEADER_READ_TIMEOUT, IDLE_TIMEOUT, MAX_BUFFER_BYTES, MAX_CONNECTIONS, SPARE_CONNECTIONS,
    ServeSettings, serve,
};
pub use settings::{HttpArgs, HttpConfig};
pub use tls::{Tls, TlsError, TlsFiles};
