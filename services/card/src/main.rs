//! `card-service`: the card service as a process of its own, with Kafka.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use card_service::{Config, NAME};
use clap::Parser;
use clock::Clock;
use event_log::{KafkaLog, KafkaSettings};
use http_server::HttpArgs;
use postgres::DatabaseUrl;
use process::{CommonArgs, KafkaArgs, Variables};
use tokio_util::sync::CancellationToken;

/// The card service: makes cards for active accounts, which it knows from their events on Kafka.
///
/// Settings are flags, environment variables, or lines of a .env file, in this order of precedence. Without Kafka, start
/// the all-in-one, tandem.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
struct Settings {
    /// The port to listen on; 0 for any
    #[arg(long, env = "PORT", default_value_t = 8082)]
    port: u16,

    #[command(flatten)]
    kafka: KafkaArgs,

    /// The consumer group whose members share the work of closing the cards of deleted accounts
    #[arg(long, env = "KAFKA_GROUP_ID", default_value = card_service::DEFAULT_GROUP)]
    kafka_group_id: String,

    /// Where the cards are kept: sqlite:PATH, or postgres://USER:PASSWORD@HOST:PORT/DATABASE [default: card.db in DATA_DIR]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<DatabaseUrl>,

    /// How old the account view may be, in seconds, while Kafka is away, before cards are refused with 503; any age if it
    /// is not set
    #[arg(long, env = "VIEW_MAX_AGE_SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    view_max_age_seconds: Option<u64>,

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
    let database = settings.database_url.unwrap_or_else(|| DatabaseUrl::Sqlite(data_dir.join("card.db")));
    let http = settings.http.config(process::raise_descriptor_limit(), 1);
    let listener = process::listen(settings.common.bind_addr, settings.port, "PORT").await?;
    let log = KafkaLog::open(KafkaSettings { brokers, topic: settings.kafka.kafka_topic, extra })?;
    process::warn_if_exposed(settings.common.bind_addr);
    let address = listener.local_addr()?;
    process::print_banner(
        "Tandem card service",
        &[
            ("Address", format!("http://{address}")),
            ("Data", database.to_string()),
            ("Events", format!("{}, group {}", event_log::EventLog::describe(&log), settings.kafka_group_id)),
            ("Try", format!("curl http://{address}/cards")),
        ],
    );
    let config = Config {
        database,
        data_dir,
        group: settings.kafka_group_id,
        backlog_published: None,
        view_max_age: settings.view_max_age_seconds.map(Duration::from_secs),
        http,
        clock: Clock::system(),
    };
    card_service::run(config, listener, Arc::new(log), shutdown).await
}
