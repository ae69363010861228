//! `tandem`: the account service, the card service and the event log in one process. The services are the same as in
//! processes of their own, and communicate only through the event log.

mod client;
mod erase;
mod events;
mod keys;
mod quarantine;
mod recover;
mod resync;
mod settings;
mod verify;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, bail};
use clock::Clock;
use event_log::{EmbeddedLog, EmbeddedSettings, EventLog, KafkaLog};
use postgres::DatabaseUrl;
use process::Variables;
use sqlite_file::FailStop;
use tokio_util::sync::CancellationToken;

use crate::settings::{Command, Settings};

/// One thread allocates the memory of a request and another one frees it, which mimalloc is built for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The number of listeners that share the process's file descriptors.
const LISTENERS: usize = 2;

fn main() -> ! {
    let (settings, variables) = process::parse::<Settings>();
    match &settings.command {
        Some(Command::Verify(arguments)) => verify::run(arguments, &settings, &variables),
        Some(Command::Events(arguments)) => events::run(arguments),
        Some(Command::Quarantine(command)) => quarantine::run(command),
        Some(Command::Keys(command)) => keys::run(command),
        Some(Command::Erase(arguments)) => erase::run(arguments),
        Some(Command::Resync | Command::Recover(_)) | None => {}
    }
    process::run(&settings.common.log_level.clone(), async |shutdown| match settings.command {
        Some(Command::Resync) => resync::resync(&account_database(&settings), shutdown).await,
        Some(Command::Recover(ref arguments)) => {
            let (log, _) = open_log(&settings, &variables)?;
            recover::run(account_database(&settings), log, arguments).await
        }
        _ => serve(settings, variables, shutdown).await,
    })
}

async fn serve(settings: Settings, variables: Variables, shutdown: CancellationToken) -> anyhow::Result<()> {
    let bind_addr = settings.common.bind_addr;
    let http = process::http_config(&settings.http, bind_addr, LISTENERS)?;
    let scheme = http.scheme();
    let account_listener = process::listen(bind_addr, settings.account_port, "ACCOUNT_PORT").await?;
    let card_listener = process::listen(bind_addr, settings.card_port, "CARD_PORT").await?;
    let (log, log_failure) = open_log(&settings, &variables)?;
    let backlog_published = Arc::<AtomicBool>::default();
    let account = account_service::Config {
        database: account_database(&settings),
        http: http.clone(),
        clock: Clock::system(),
        backlog_published: Arc::clone(&backlog_published),
    };
    let card = card_service::Config {
        database: settings.card_database_url.clone().unwrap_or_else(|| database_file(&settings, "card.db")),
        data_dir: settings.common.data_dir.clone(),
        group: settings.kafka_group_id.clone(),
        backlog_published: Some(backlog_published),
        events: card_service::EventStreamSettings {
            max_streams: settings.max_event_streams.into(),
            ..card_service::EventStreamSettings::default()
        },
        rebuild_view: settings.rebuild_view,
        view_max_age: settings.view_max_age_seconds.map(Duration::from_secs),
        http,
        clock: Clock::system(),
    };
    let account_url = format!("{scheme}://{}", account_listener.local_addr()?);
    process::print_banner(
        "Tandem",
        &[
            ("Accounts", account_url.clone()),
            ("Cards", format!("{scheme}://{}", card_listener.local_addr()?)),
            ("Data", format!("{}, {}", account.database, card.database)),
            ("Events", log.describe()),
            ("Try", account_service::first_curl(&account_url)),
        ],
    );
    let services = async {
        tokio::join!(
            stop_other_on_failure(
                account_service::run(account, account_listener, Arc::clone(&log), shutdown.clone()),
                &shutdown
            ),
            stop_other_on_failure(card_service::run(card, card_listener, log, shutdown.clone()), &shutdown),
        )
    };
    let (accounts, cards) = tokio::select! {
        ended = services => ended,
        failure = log_failure.failed() => return Err(failure).context("event log"),
    };
    // The log may have failed when its last user closed it.
    if log_failure.has_failed() {
        return Err(log_failure.failed().await).context("event log");
    }
    accounts.context("account service").and(cards.context("card service"))
}

fn account_database(settings: &Settings) -> DatabaseUrl {
    settings.account_database_url.clone().unwrap_or_else(|| database_file(settings, "account.db"))
}

fn database_file(settings: &Settings, name: &str) -> DatabaseUrl {
    DatabaseUrl::Sqlite(settings.common.data_dir.join(name))
}

/// Opens Kafka if it is configured, or else the embedded event log. Also returns what stops the process when the storage of
/// the embedded log fails.
fn open_log(settings: &Settings, variables: &Variables) -> anyhow::Result<(Arc<dyn EventLog>, FailStop)> {
    if let Some(kafka) = settings.kafka.log_settings(variables)? {
        return Ok((Arc::new(KafkaLog::open(kafka)?), FailStop::default()));
    }
    // A Kafka setting without KAFKA_BROKERS is a mistake: the events would go to a file unnoticed.
    if let Some((name, _)) = settings.kafka.properties(variables)?.first() {
        bail!("{} is set, but KAFKA_BROKERS, which says where Kafka is, is not", event_log::kafka_variable(name));
    }
    let log = EmbeddedLog::open(EmbeddedSettings::at(settings.common.data_dir.join("event-log.db")))?;
    let fail_stop = log.fail_stop();
    Ok((Arc::new(log), fail_stop))
}

/// Runs `service`, and cancels `shutdown` if it fails, so that the other service stops too.
async fn stop_other_on_failure(
    service: impl Future<Output = anyhow::Result<()>>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let outcome = service.await;
    if outcome.is_err() {
        shutdown.cancel();
    }
    outcome
}
