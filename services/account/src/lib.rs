//! The account service: stores accounts, and publishes an event for each creation and each change of status.
//!
//! `POST /account` passes `http/router` → `http/create_account` → [`store`] → `decide`, which decides row and event; the store commits
//! both in one transaction, and the request is answered. `outbox/relay` then publishes the event. No handler has access to the
//! event log (ARCHITECTURE.md A1), and no answer waits for it (A2).

pub mod account;
mod account_number;
mod beholder_name;
mod config;
mod decide;
pub mod error;
pub mod history;
pub mod http;
pub mod idempotency;
mod lineage;
pub mod outbox;
pub mod recover;
pub mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use account_events::PUBLISHER;
use anyhow::Context;
use event_log::EventLog;
use http_server::{Readiness, ReadyReport};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::Config;

use crate::lineage::Inheritance;
use crate::outbox::OutboxSignal;
use crate::outbox::relay::Relay;
use crate::outbox::relay_status::RelayStatus;
use crate::store::{Opened, Store};

/// The service's name, as `/health` gives it.
pub const NAME: &str = "account-service";

/// An example command for the banner of a service at `url`.
pub fn first_curl(url: &str) -> String {
    let body = r#"{"beholder_name":"John Doe","country_code":"US"}"#;
    format!("curl -X POST {url}/account -H 'Content-Type: application/json' -d '{body}'")
}

/// How long the start of an empty database waits for the owner record. `EventLog::prepare` runs before and has its own timeout.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a stop waits for the relay to publish the last events. Unpublished events stay in the outbox.
const RELAY_DRAIN: Duration = Duration::from_secs(5);

/// Serves on `listener` until `shutdown` is cancelled, then answers the requests in flight, publishes their events if the log is
/// there, and returns.
pub async fn run(
    config: Config,
    listener: TcpListener,
    log: Arc<dyn EventLog>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (signal, wait) = OutboxSignal::channel();
    let predecessor = || predecessor(log.as_ref());
    let Opened { store, writer_thread, outbox } = Store::open(&config, signal.clone(), &predecessor).await?;
    let store = Arc::new(store);
    let status = Arc::new(RelayStatus::default());
    let relay_stopping = Arc::new(AtomicBool::new(false));
    let relay = Relay {
        outbox,
        signal: wait,
        log,
        superseded: store.superseded().clone(),
        status: Arc::clone(&status),
        stopping: Arc::clone(&relay_stopping),
        appended: 0,
        backlog: None,
        backlog_published: config.backlog_published,
        superseded_by: None,
    };
    let relay_thread = std::thread::Builder::new()
        .name("account-relay".to_owned())
        .spawn(move || relay.run())
        .context("cannot start the relay")?;

    let readiness = Arc::new(AccountReadiness { store: Arc::clone(&store), status, shutdown: shutdown.clone() });
    let endpoints = http::router::endpoints().with_state(Arc::clone(&store));
    let health = http_server::health_endpoints(NAME, readiness, &config.http);
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

    stop(store, writer_thread, relay_thread, relay_stopping, signal).await?;
    // A storage that failed during the stop leaves its write-ahead log for the restart, and is no clean stop.
    if fail_stop.has_failed() {
        return Err(fail_stop.failed().await.into());
    }
    tracing::info!(service = NAME, "stopped");
    Ok(())
}

/// Returns the owner of the topic for an empty database. `None` if the log does not answer in time: the relay compares later.
fn predecessor(log: &dyn EventLog) -> Option<Inheritance> {
    let committed = log.prepare().and_then(|()| log.committed(PUBLISHER, PREDECESSOR_TIMEOUT));
    let inheritance = Inheritance::of(&committed.ok().flatten()?)?;
    tracing::warn!(
        database_id = inheritance.owner.database_id,
        accounts = inheritance.owner.account_sequence_high,
        "this account database is empty, and the topic has the events of another one: taking over the topic; its accounts, up to \
         this number, stay as they are in the event log and are unknown to this service"
    );
    Some(inheritance)
}

/// Ends the writer, then the relay, which publishes the last commits. Closes the database last.
async fn stop(
    store: Arc<Store>,
    writer_thread: JoinHandle<()>,
    relay_thread: JoinHandle<()>,
    relay_stopping: Arc<AtomicBool>,
    signal: OutboxSignal,
) -> anyhow::Result<()> {
    store.stop();
    // A panic was logged already.
    let _ = tokio::task::spawn_blocking(move || writer_thread.join()).await;
    let ending = tokio::task::spawn_blocking(move || {
        relay_stopping.store(true, Ordering::Release);
        signal.notify();
        relay_thread.thread().unpark();
        let _ = relay_thread.join();
    });
    if tokio::time::timeout(RELAY_DRAIN, ending).await.is_err() {
        tracing::warn!("the event log did not take the last events in time; they stay in the outbox");
    }
    Ok(tokio::task::spawn_blocking(move || store.close()).await??)
}

struct AccountReadiness {
    store: Arc<Store>,
    status: Arc<RelayStatus>,
    shutdown: CancellationToken,
}

impl Readiness for AccountReadiness {
    /// The service is ready even while the event log is away: events wait in the outbox (ARCHITECTURE.md A2).
    fn report(&self) -> ReadyReport {
        let mut report = ReadyReport::default();
        report.reasons.extend(self.store.failures().map(|cause| process::public_cause(&cause)));
        report.warn(self.store.warning().map(|warning| process::public_cause(&warning)));
        report.reasons.extend(self.store.superseded().reason().map(|reason| format!("superseded: {reason}")));
        if self.shutdown.is_cancelled() {
            report.reasons.push("the service is stopping".to_owned());
        }
        let failure = self.status.failure().map(|cause| process::public_cause(&cause));
        let relay = json!({ "publishing": failure.is_none(), "published": self.status.published_count(), "waiting": self.status.waiting_count(), "failure": failure });
        report.details.insert("relay".to_owned(), relay);
        report
    }
}
