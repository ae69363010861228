//! `account-service`: the account service as a process of its own, with Kafka.

use std::sync::Arc;

use account_service::{Config, NAME};
use anyhow::bail;
use clap::Parser;
use clock::Clock;
use event_log::{KafkaLog, KafkaSettings};
use http_server::HttpArgs;
use postgres::DatabaseUrl;
use process::{CommonArgs, KafkaArgs, Variables};
use tokio_util::sync::CancellationToken;

/// The account service: keeps accounts, and publishes an event on Kafka for every creation and every change of status.
///
/// Settings are flags, environment variables, or lines of a .env file, in this order of precedence. Without Kafka, start
/// the all-in-one, tandem.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
struct Settings {
    /// The port to listen on; 0 for any
    #[arg(long, env = "PORT", default_value_t = 8081)]
    port: u16,

    #[command(flatten)]
    kafka: KafkaArgs,

    /// Where the accounts are kept: sqlite:PATH, or postgres://USER:PASSWORD@HOST:PORT/DATABASE [default: account.db in DATA_DIR]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<DatabaseUrl>,

    #[command(flatten)]
    common: CommonArgs,

    #[command(flatten)]
    http: HttpArgs,
}

/// A request crosses four threads, and memory that one thread allocates another thread frees: mimalloc is built for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ! {
    let (settings, variables) = process::parse::<Settings>();
    process::run(&settings.common.log_level.clone(), |shutdown| serve(settings, variables, shutdown))
}

async fn serve(settings: Settings, variables: Variables, shutdown: CancellationToken) -> anyhow::Result<()> {
    let extra = settings.kafka.properties(&variables)?;
    let Some(brokers) = settings.kafka.kafka_brokers else {
        bail!(
            "KAFKA_BROKERS is not set, and {NAME} needs Kafka; without Kafka start the all-in-one: cargo run --release -p tandem"
        );
    };
    let data_dir = settings.common.data_dir;
    let database = settings.database_url.unwrap_or_else(|| DatabaseUrl::Sqlite(data_dir.join("account.db")));
    let http = settings.http.config(process::raise_descriptor_limit(), 1);
    let listener = process::listen(settings.common.bind_addr, settings.port, "PORT").await?;
    let log = KafkaLog::open(KafkaSettings { brokers, topic: settings.kafka.kafka_topic, extra })?;
    process::warn_if_exposed(settings.common.bind_addr);
    let address = listener.local_addr()?;
    process::print_banner(
        "Tandem account service",
        &[
            ("Address", format!("http://{address}")),
            ("Data", database.to_string()),
            ("Events", event_log::EventLog::describe(&log)),
            ("Try", account_service::first_curl(address)),
        ],
    );
    let config = Config { database, http, clock: Clock::system(), backlog_published: Arc::default() };
    account_service::run(config, listener, Arc::new(log), shutdown).await
}
