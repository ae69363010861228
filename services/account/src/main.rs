//! `account-service`: the account service as a process of its own, with Kafka.

use std::sync::Arc;

use account_service::{Config, NAME};
use clap::Parser;
use clock::Clock;
use http_server::HttpArgs;
use postgres::DatabaseUrl;
use process::{CommonArgs, KafkaArgs, Standalone, Variables};
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

/// One thread allocates the memory of a request and another one frees it, which mimalloc is built for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ! {
    let (settings, variables) = process::parse::<Settings>();
    process::run(&settings.common.log_level.clone(), |shutdown| serve(settings, variables, shutdown))
}

async fn serve(settings: Settings, variables: Variables, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Settings { port, kafka, database_url, common, http } = settings;
    let service = Standalone::open(NAME, port, &kafka, &common, &http, &variables).await?;
    let database = database_url.unwrap_or_else(|| DatabaseUrl::Sqlite(common.data_dir.join("account.db")));
    service.print_banner("Tandem account service", &database, "", account_service::first_curl(&service.url()));
    let Standalone { http, listener, log, .. } = service;
    let config = Config { database, http, clock: Clock::system(), backlog_published: Arc::default() };
    account_service::run(config, listener, log, shutdown).await
}
