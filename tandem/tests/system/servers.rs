//! Real servers: those that all tests share, and sets of a test's own, which it may stop and start.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use test_harness::{DEADLINE, POSTGRES_URL};

/// How long one question to a broker may take that is perhaps not there.
const QUESTION: Duration = Duration::from_millis(200);

/// Brokers and PostgreSQL that all tests share; `None` where there are none (`dev/servers env` prints where they are).
pub(crate) fn shared() -> Option<(String, String)> {
    Some((std::env::var("TANDEM_TEST_KAFKA_BROKERS").ok()?, std::env::var(POSTGRES_URL).ok()?))
}

/// Servers of this test's own. They end when it is dropped.
pub(crate) struct Servers {
    script: PathBuf,
    name: &'static str,
    env: String,
}

impl Servers {
    /// Starts servers, as `dev/servers up` names them. `None` without `TANDEM_TEST_SERVERS`, which names that script.
    pub(crate) fn start(name: &'static str, servers: &[&str]) -> Option<Self> {
        let script = std::env::var_os("TANDEM_TEST_SERVERS")?.into();
        let mut started = Servers { script, name, env: String::new() };
        // What a run before this one left behind, if it was killed.
        started.tell(&["down"]);
        started.env = started.tell(&[&["up"], servers].concat());
        Some(started)
    }

    /// For `KAFKA_BROKERS`.
    pub(crate) fn brokers(&self) -> String {
        self.variable("TANDEM_TEST_KAFKA_BROKERS")
    }

    /// The URL of PostgreSQL.
    pub(crate) fn postgres(&self) -> String {
        self.variable(POSTGRES_URL)
    }

    /// The URL of its standby.
    pub(crate) fn postgres_standby(&self) -> String {
        self.variable("TANDEM_TEST_POSTGRES_STANDBY_URL")
    }

    /// The URL of its database `postgres` through PgBouncer.
    pub(crate) fn pgbouncer(&self) -> String {
        self.variable("TANDEM_TEST_PGBOUNCER_URL")
    }

    /// Runs `dev/servers` with these arguments, and gives what it prints.
    pub(crate) fn tell(&self, arguments: &[&str]) -> String {
        let output =
            self.command(arguments).output().unwrap_or_else(|error| panic!("{}: {error}", self.script.display()));
        assert!(output.status.success(), "dev/servers {arguments:?}: {}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.script);
        command.args(arguments).env("TANDEM_SERVERS", self.name).stdin(Stdio::null()).stderr(Stdio::inherit());
        command
    }

    fn variable(&self, name: &str) -> String {
        let prefix = format!("export {name}=");
        self.env.lines().find_map(|line| line.strip_prefix(&prefix)).expect("it is one of those started").to_owned()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // Also where the test has failed; a second panic would hide why.
        let _ = self.command(&["down"]).status();
    }
}

/// A client that reads nothing, and is soon connected again.
pub(crate) fn kafka_client(brokers: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "foreign").set("enable.auto.commit", "false");
    config.set("reconnect.backoff.max.ms", "100");
    config.set("isolation.level", "read_committed").create().expect("a client")
}

/// Waits until the broker at `address` answers, and says when it did.
pub(crate) fn wait_for_broker(address: &str) -> Instant {
    let (client, started) = (kafka_client(address), Instant::now());
    // Longer than other things may take: a server starts meanwhile.
    while client.fetch_metadata(None, QUESTION).is_err() {
        assert!(started.elapsed() < 2 * DEADLINE, "{address} does not answer");
    }
    Instant::now()
}
