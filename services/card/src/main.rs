//! `card-service`: the card service as a process of its own, with Kafka.

use std::time::Duration;

use card_service::{Config, EventStreamSettings, NAME};
use clap::Parser;
use clock::Clock;
use http_server::HttpArgs;
use postgres::DatabaseUrl;
use process::{CommonArgs, KafkaArgs, Standalone, Variables};
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

    /// How many event streams (GET /events) may be open at once; more are answered 503
    #[arg(long, env = "MAX_EVENT_STREAMS", default_value_t = card_service::DEFAULT_MAX_EVENT_STREAMS)]
    max_event_streams: u16,

    /// Read the whole event log at the start instead of the checkpoint; records that can be decoded now leave the quarantine
    #[arg(long, env = "REBUILD_VIEW")]
    rebuild_view: bool,

    #[command(flatten)]
    common: CommonArgs,

    #[command(flatten)]
    http: HttpArgs,
}

/// One thread allocates the memory of a request and another one frees it, which mimalloc is built for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ! {
    let (settings, variables) = process::parse::<Settings>();
    process::run(&settings.common.log_level.clone(), |shutdown| serve(settings, variables, shutdown))
}

async fn serve(settings: Settings, variables: Variables, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Settings {
        port,
        kafka,
        kafka_group_id: group,
        database_url,
        view_max_age_seconds,
        max_event_streams,
        rebuild_view,
        common,
        http,
    } = settings;
    let service = Standalone::open(NAME, port, &kafka, &common, &http, &variables).await?;
    let database = database_url.unwrap_or_else(|| DatabaseUrl::Sqlite(common.data_dir.join("card.db")));
    let command = format!("curl {}/cards", service.url());
    service.print_banner("Tandem card service", &database, &format!(", group {group}"), command);
    let Standalone { http, listener, log, .. } = service;
    let config = Config {
        database,
        data_dir: common.data_dir,
        group,
        backlog_published: None,
        events: EventStreamSettings { max_streams: max_event_streams.into(), ..EventStreamSettings::default() },
        rebuild_view,
        view_max_age: view_max_age_seconds.map(Duration::from_secs),
        http,
        clock: Clock::system(),
    };
    card_service::run(config, listener, log, shutdown).await
}
