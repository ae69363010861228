//! The start that both services have in common as processes of their own.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::bail;
use event_log::{EventLog, KafkaLog};
use http_server::{HttpArgs, HttpConfig};
use tokio::net::TcpListener;

use crate::{CommonArgs, KafkaArgs, Variables, http_config, listen, print_banner};

/// What a service of its own process runs on.
pub struct Standalone {
    /// The settings of its HTTP server.
    pub http: HttpConfig,
    /// Its listener.
    pub listener: TcpListener,
    /// The address of the listener.
    pub address: SocketAddr,
    /// Its connection to Kafka.
    pub log: Arc<KafkaLog>,
}

impl Standalone {
    /// Listens on `port` and opens Kafka, which the service `name` needs. Fails if Kafka is not configured.
    pub async fn open(
        name: &str,
        port: u16,
        kafka: &KafkaArgs,
        common: &CommonArgs,
        http: &HttpArgs,
        variables: &Variables,
    ) -> anyhow::Result<Self> {
        let http = http_config(http, common.bind_addr, 1)?;
        let Some(kafka) = kafka.log_settings(variables)? else {
            bail!(
                "KAFKA_BROKERS is not set, and {name} needs Kafka; without Kafka start the all-in-one: cargo run --release -p tandem"
            );
        };
        let listener = listen(common.bind_addr, port, "PORT").await?;
        let log = Arc::new(KafkaLog::open(kafka)?);
        let address = listener.local_addr()?;
        Ok(Standalone { http, listener, address, log })
    }

    /// The URL of the service.
    pub fn url(&self) -> String {
        format!("{}://{}", self.http.scheme(), self.address)
    }

    /// Prints the banner `title`, with where the data is, a note about the events, and a command to try.
    pub fn print_banner(&self, title: &str, data: &impl Display, events_note: &str, command: String) {
        let events = format!("{}{events_note}", self.log.describe());
        print_banner(
            title,
            &[("Address", self.url()), ("Data", data.to_string()), ("Events", events), ("Try", command)],
        );
    }
}
