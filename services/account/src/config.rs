//! The settings of the account service that are its own, in whichever binary it runs.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clock::Clock;
use http_server::HttpConfig;
use postgres::DatabaseUrl;

/// What [`run`](crate::run) needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where its rows are.
    pub database: DatabaseUrl,
    /// How it answers HTTP.
    pub http: HttpConfig,
    /// What time it is.
    pub clock: Clock,
    /// The relay sets this flag once the event log has every event that the outbox held at the start.
    pub backlog_published: Arc<AtomicBool>,
}
