//! The card service: creates cards for active accounts without calling the account service.
//!
//! `accounts/feed` applies events from the event log to [`accounts::view`], and `POST /card` is one look-up there and one durable
//! insert (ARCHITECTURE.md C1). When an account is deleted, the feed and the card closer close it in the card database (C4).

pub mod accounts;
pub mod card;
mod card_number;
mod closer;
mod closing;
mod decide;
pub mod error;
mod http;
mod idempotency;
pub mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use clock::Clock;
use event_log::{EventLog, Positions};
use http_server::{HttpConfig, Readiness, ReadyReport};
use postgres::DatabaseUrl;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::accounts::event_ring::EventRing;
use crate::accounts::feed::{AccountFeed, SampledLog};
use crate::accounts::status::ViewStatus;
use crate::accounts::waiters::Waiters;
use crate::closer::CardCloser;
use crate::closing::Closing;
use crate::http::events::EventStreams;
pub use crate::http::events::{DEFAULT_MAX_EVENT_STREAMS, EventStreamSettings};
use crate::http::response::CardService;
use crate::store::Store;

/// The service's name, as `/health` gives it.
pub const NAME: &str = "card-service";

/// The default consumer group of the card closers, as in the seed.
pub const DEFAULT_GROUP: &str = "card-service";

/// How long a stop waits for the threads that read the event log. Records they have not committed are read again at the next start.
const LOOPS_DRAIN: Duration = Duration::from_secs(5);

/// The configuration of [`run`].
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
    /// The bounds of the event streams.
    pub events: EventStreamSettings,
    /// Whether the start ignores the checkpoint of the account view and reads the whole event log.
    pub rebuild_view: bool,
    /// Set once the event log has the events that the account service's outbox held at the start. The view is not ready before it
    /// has applied them. `None` if the account service is another process.
    pub backlog_published: Option<Arc<AtomicBool>>,
    /// The HTTP settings.
    pub http: HttpConfig,
    /// The clock.
    pub clock: Clock,
}

/// Serves on `listener` until `shutdown` is cancelled, then answers the requests in flight, and returns.
pub async fn run(
    config: Config,
    listener: TcpListener,
    log: Arc<dyn EventLog>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let checkpoint = accounts::checkpoint::path(&config.database, &config.data_dir);
    let known = accounts::checkpoint::database_of(&checkpoint);
    let clock = config.clock.clone();
    let (store, writer_thread) = Store::open(&config, known).await?;
    let quarantined = store.quarantined_places().await?;
    let (view_writer, view) = accounts::view::account_view();
    let status = Arc::new(ViewStatus::new(config.view_max_age));
    let waiters = Arc::new(Waiters::new(view.clone(), Arc::clone(&status)));
    let stopping = Arc::new(AtomicBool::new(false));
    let (checkpoints, checkpoint_writer) =
        accounts::checkpoint::checkpoints(checkpoint, view.clone(), store.identity(), Arc::clone(&stopping));

    let ring = Arc::new(EventRing::new(clock));
    let feed = AccountFeed {
        log: Arc::clone(&log),
        view: view_writer,
        store: store.clone(),
        status: Arc::clone(&status),
        waiters: Arc::clone(&waiters),
        stopping: Arc::clone(&stopping),
        closing: Closing::new(store.clone()),
        unstored: BTreeMap::new(),
        quarantined,
        decoded: BTreeSet::new(),
        rebuild_view: config.rebuild_view,
        checkpoints,
        ring: Arc::clone(&ring),
        positions: Positions::new(),
        lines: SampledLog::default(),
        backlog_published: config.backlog_published,
        log_id: None,
    };
    let closer = CardCloser {
        log: Arc::clone(&log),
        group: config.group,
        store: store.clone(),
        stopping: Arc::clone(&stopping),
    };
    let (watched, watch_stop, watched_log) = (Arc::clone(&waiters), Arc::clone(&stopping), Arc::clone(&log));
    let loops = [
        spawn("account-feed", move || feed.run())?,
        spawn("view-checkpoint", move || checkpoint_writer.run())?,
        spawn("card-closer", move || closer.run())?,
        spawn("view-watch", move || accounts::feed::watch(watched_log.as_ref(), &watched, &watch_stop))?,
    ];

    let events = EventStreams::new(ring, config.events);
    let service =
        Arc::new(CardService { store: store.clone(), view, status, waiters, log, events, shutdown: shutdown.clone() });
    let endpoints = http::router::endpoints().with_state(Arc::clone(&service));
    let health = http_server::health_endpoints(NAME, service, &config.http);
    let routes = endpoints.merge(health).into_routes(http::router::API);
    let address = listener.local_addr()?;
    let router = http_server::finish(routes, NAME, &config.http, address.ip());
    tracing::info!(service = NAME, %address, "listening");
    let fail_stop = store.fail_stop();
    tokio::select! {
        () = http_server::serve(listener, router, config.http.limits, shutdown) => {}
        // Fail-stop: the restart recovers.
        failure = fail_stop.failed() => return Err(failure.into()),
    }

    stop(store, writer_thread, loops, stopping).await?;
    // A storage that failed during the stop leaves its write-ahead log for the restart, and is no clean stop.
    if fail_stop.has_failed() {
        return Err(fail_stop.failed().await.into());
    }
    tracing::info!(service = NAME, "stopped");
    Ok(())
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(run).with_context(|| format!("cannot start the thread {name}"))
}

/// Ends the threads that read the log, which also write, then the writer. Closes the database last.
async fn stop(
    store: Store,
    writer_thread: JoinHandle<()>,
    loops: [JoinHandle<()>; 4],
    stopping: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    stopping.store(true, Ordering::Release);
    let ending = tokio::task::spawn_blocking(move || {
        for thread in loops {
            thread.thread().unpark();
            // A panic was logged already.
            let _ = thread.join();
        }
    });
    if tokio::time::timeout(LOOPS_DRAIN, ending).await.is_err() {
        tracing::warn!("the readers of the event log did not stop in time");
    }
    store.stop();
    let _ = tokio::task::spawn_blocking(move || writer_thread.join()).await;
    Ok(tokio::task::spawn_blocking(move || store.close()).await??)
}

impl Readiness for CardService {
    fn report(&self) -> ReadyReport {
        let mut report = ReadyReport::default();
        report.reasons.extend(self.status.unready());
        report.reasons.extend(self.store.failures().map(|cause| process::public_cause(&cause)));
        report.warn(self.store.warning().map(|warning| process::public_cause(&warning)));
        if self.shutdown.is_cancelled() {
            report.reasons.push("the service is stopping".to_owned());
        }
        let mut view = self.status.details(&self.view);
        view["waiting"] = self.waiters.len().into();
        report.details.insert("view".to_owned(), view);
        report
    }
}
