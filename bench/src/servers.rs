//! Apache Kafka and PostgreSQL on this machine, by `dev/servers`.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// The servers. Those that this program started are stopped when dropped.
pub(crate) struct Servers {
    /// Kafka's `host:port`.
    pub(crate) brokers: String,
    /// PostgreSQL's URL.
    pub(crate) postgres: String,
    started: Vec<&'static str>,
}

impl Servers {
    /// Uses the servers that are up, and starts those that are not.
    pub(crate) fn up() -> anyhow::Result<Self> {
        const WANTED: [(&str, &str); 2] =
            [("kafka", test_harness::KAFKA_BROKERS), ("postgres", test_harness::POSTGRES_URL)];
        let value = |env: &str, name: &str| {
            let line = env.lines().find_map(|line| line.strip_prefix("export ")?.strip_prefix(name)?.strip_prefix('='));
            line.map(str::to_owned)
        };
        let before = dev_servers(&["env"])?;
        let started =
            WANTED.iter().filter(|(_, name)| value(&before, name).is_none()).map(|(server, _)| *server).collect();
        let mut servers = Servers { brokers: String::new(), postgres: String::new(), started };
        let up = dev_servers(&["up", "kafka", "postgres"])?;
        let [brokers, postgres] = WANTED.map(|(_, name)| value(&up, name).with_context(|| format!("no {name}")));
        (servers.brokers, servers.postgres) = (brokers?, postgres?);
        Ok(servers)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // Without names `down` would stop all.
        if !self.started.is_empty()
            && let Err(error) = dev_servers(&[&["down"], self.started.as_slice()].concat())
        {
            eprintln!("the servers were not stopped: {error}");
        }
    }
}

/// What `dev/servers` prints.
fn dev_servers(arguments: &[&str]) -> anyhow::Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/servers");
    let mut command = Command::new(&script);
    // A server that it starts keeps a piped stderr open for as long as it runs.
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot run {}", script.display()))?;
    ensure!(output.status.success(), "dev/servers {} failed", arguments.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}
