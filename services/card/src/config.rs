//! The configuration of the card service.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clock::Clock;
use http_server::HttpConfig;
use postgres::DatabaseUrl;

/// The configuration of [`run`](crate::run).
#[derive(Debug, Clone)]
pub struct Config {
    /// The database.
    pub database: DatabaseUrl,
    /// The directory of the checkpoint of the account view, if the database is not a file.
    pub data_dir: PathBuf,
    /// The consumer group of the card closers.
    pub group: String,
    /// The maximum age of the view for creating cards; unlimited if `None`.
    pub view_max_age: Option<Duration>,
    /// Set once the event log has the events that the account service's outbox held at the start. The view is not ready before it
    /// has applied them. `None` if the account service is another process.
    pub backlog_published: Option<Arc<AtomicBool>>,
    /// The HTTP settings.
    pub http: HttpConfig,
    /// The clock.
    pub clock: Clock,
}
