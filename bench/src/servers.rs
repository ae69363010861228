//! The services on Apache Kafka and PostgreSQL, on this machine.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use event_log::{KafkaLog, KafkaSettings};

/// Servers of this clone's `dev/servers`. Each is stopped at the end if it was here that it was started; one that was up
/// before goes on, and keeps the topics and databases that were made.
pub(crate) struct Servers {
    /// Kafka's.
    pub(crate) brokers: String,
    /// A URL of PostgreSQL's.
    pub(crate) postgres: String,
    started: Vec<&'static str>,
}

impl Servers {
    pub(crate) fn up() -> anyhow::Result<Self> {
        const KAFKA_BROKERS: &str = "TANDEM_TEST_KAFKA_BROKERS";
        let named = |env: &str, name| {
            let line = env.lines().find_map(|line| line.strip_prefix("export ")?.strip_prefix(name)?.strip_prefix('='));
            line.map(str::to_owned)
        };
        let before = dev_servers(&["env"])?;
        let mut started = Vec::new();
        for (server, name) in [("kafka", KAFKA_BROKERS), ("postgres", test_harness::POSTGRES_URL)] {
            if named(&before, name).is_some() {
                println!("using {server} as it is up");
            } else {
                println!("starting {server}");
                started.push(server);
            }
        }
        let mut servers = Servers { brokers: String::new(), postgres: String::new(), started };
        // What is up already stays as it is.
        let up = dev_servers(&["up", "kafka", "postgres"])?;
        let said = |name| named(&up, name).with_context(|| format!("dev/servers does not say {name}"));
        servers.brokers = said(KAFKA_BROKERS)?;
        servers.postgres = said(test_harness::POSTGRES_URL)?;
        Ok(servers)
    }

    /// A name for a topic that no earlier run has used, so that a view has nothing old to read.
    pub(crate) fn topic_name(&self, of: &str) -> String {
        format!("bench-{of}-{}", std::process::id())
    }

    /// A topic of that name, as the services make it.
    pub(crate) fn topic(&self, of: &str) -> anyhow::Result<KafkaLog> {
        let settings = KafkaSettings { brokers: self.brokers.clone(), topic: self.topic_name(of), extra: Vec::new() };
        let log = KafkaLog::open(settings)?;
        event_log::EventLog::prepare(&log)?;
        Ok(log)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // Without names `down` would take all.
        if !self.started.is_empty()
            && let Err(error) = dev_servers(&[&["down"], self.started.as_slice()].concat())
        {
            eprintln!("the servers were not stopped: {error}");
        }
    }
}

/// What `dev/servers` prints.
fn dev_servers(arguments: &[&str]) -> anyhow::Result<String> {
    let script = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../dev/servers"));
    let mut command = Command::new(&script);
    // What it starts keeps a piped stderr open for as long as it runs.
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot run {}", script.display()))?;
    ensure!(output.status.success(), "dev/servers {} failed", arguments.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}
