//! The settings of the card service that are its own, in whichever binary it runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clock::Clock;
use http_server::HttpConfig;
use postgres::DatabaseUrl;

/// What [`run`](crate::run) needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where its rows are.
    pub database: DatabaseUrl,
    /// The folder for the checkpoint of the account view, if the database is no file beside which it can be.
    pub data_dir: PathBuf,
    /// The group whose members share the card closer's work.
    pub group: String,
    /// How old the view may be for making cards; any age if `None`.
    pub view_max_age: Option<Duration>,
    /// Set once the event log has the events that the account service's outbox held at the start. The view is not ready before it
    /// holds them. `None` where the account service is another process.
    pub backlog_published: Option<Arc<AtomicBool>>,
    /// How it answers HTTP.
    pub http: HttpConfig,
    /// What time it is.
    pub clock: Clock,
}
