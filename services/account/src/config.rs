//! The configuration of the account service.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clock::Clock;
use http_server::HttpConfig;
use postgres::DatabaseUrl;

/// The configuration of [`run`](crate::run).
#[derive(Debug, Clone)]
pub struct Config {
    /// The database.
    pub database: DatabaseUrl,
    /// The HTTP settings.
    pub http: HttpConfig,
    /// The clock.
    pub clock: Clock,
    /// The relay sets this flag once the event log has every event that the outbox held at the start.
    pub backlog_published: Arc<AtomicBool>,
}
