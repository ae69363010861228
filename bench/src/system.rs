//! The services under measurement: release binaries as processes, reached over HTTP.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use test_harness::{Http, Process, postgres_database};
use uuid::Uuid;

use crate::load::{self, Answers, Until};
use crate::machine::{processor_time, resident_mebibytes};
use crate::results::Of;
use crate::servers::Servers;

/// The names of the services, in log lines and as binaries.
pub(crate) const ACCOUNT_SERVICE: &str = "account-service";
pub(crate) const CARD_SERVICE: &str = "card-service";

/// The body of each `POST /account`.
pub(crate) const ACCOUNT: &str = r#"{"beholder_name":"John Doe","country_code":"US"}"#;

/// How long the view may take to reach what was asked for. It is long enough for ten million accounts.
const VIEW_TIMEOUT: Duration = Duration::from_secs(600);

/// A folder of release binaries, and the column that they have in the table.
pub(crate) struct Build {
    pub(crate) of: Of,
    folder: PathBuf,
}

impl Build {
    /// Builds the services as they are checked out.
    pub(crate) fn checked_out() -> anyhow::Result<Self> {
        println!("building the services");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "--release", "-p", "tandem", "-p", ACCOUNT_SERVICE, "-p", CARD_SERVICE]);
        let status = command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).status()?;
        ensure!(status.success(), "the services do not build");
        let program = std::env::current_exe()?;
        Build::at(Of::Ours, program.parent().context("a program is in a folder")?)
    }

    /// Binaries that were built before.
    pub(crate) fn at(of: Of, folder: &Path) -> anyhow::Result<Self> {
        for name in ["tandem", ACCOUNT_SERVICE, CARD_SERVICE] {
            ensure!(folder.join(name).is_file(), "there is no {name} in {}", folder.display());
        }
        // A relative path would be that of the folder a process starts in.
        Ok(Build { of, folder: folder.canonicalize()? })
    }
}

impl Build {
    /// Starts the all-in-one with its files in `folder`.
    pub(crate) fn start_all_in_one(&self, folder: &Path, settings: &[(&str, &str)]) -> Process {
        Process::start(&self.folder.join("tandem"), folder, &[&[("DATA_DIR", ".")], settings].concat())
    }
}

/// The services of one build: one process, or two with Kafka between them.
pub(crate) struct System {
    pub(crate) of: Of,
    processes: Vec<Process>,
    pub(crate) accounts: SocketAddr,
    pub(crate) cards: SocketAddr,
}

impl System {
    /// Starts the all-in-one in `folder`, and waits until both services are ready.
    pub(crate) fn all_in_one(build: &Build, folder: &Path) -> anyhow::Result<Self> {
        let mut process = build.start_all_in_one(folder, &[]);
        let [accounts, cards] = [ACCOUNT_SERVICE, CARD_SERVICE].map(|name| process.service(name));
        wait_until_ready(&accounts)?;
        wait_until_ready(&cards)?;
        Ok(System { of: build.of, processes: vec![process], accounts: accounts.address(), cards: cards.address() })
    }

    /// Starts both services on a topic and databases of their own, and waits until both are ready.
    pub(crate) fn on_servers(build: &Build, folder: &Path, servers: &Servers) -> anyhow::Result<Self> {
        let topic = test_harness::unique_name();
        let start = |name| {
            let database = postgres_database(&servers.postgres);
            let (process, http) =
                start_on_kafka(build, name, folder, servers, &[("KAFKA_TOPIC", &topic), ("DATABASE_URL", &database)]);
            wait_until_ready(&http)?;
            anyhow::Ok((process, http.address()))
        };
        let ((account_process, accounts), (card_process, cards)) = (start(ACCOUNT_SERVICE)?, start(CARD_SERVICE)?);
        Ok(System { of: build.of, processes: vec![account_process, card_process], accounts, cards })
    }

    /// The processor time of all processes so far.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        self.processes.iter().map(|process| processor_time(process.id())).sum()
    }

    /// The resident memory of all processes, in MiB.
    pub(crate) fn resident_mebibytes(&self) -> anyhow::Result<f64> {
        self.processes.iter().map(|process| resident_mebibytes(process.id())).sum()
    }

    /// Where the service that has `path` listens.
    pub(crate) fn address(&self, path: &str) -> SocketAddr {
        if path == "/account" { self.accounts } else { self.cards }
    }

    /// Keeps `connections` busy with `request`, which is a `POST path`, and returns once the view has the new accounts too.
    pub(crate) fn keep_busy(
        &self,
        path: &str,
        request: &Rc<[u8]>,
        connections: usize,
        time: Duration,
    ) -> anyhow::Result<Answers> {
        let request = Rc::clone(request);
        self.keep_busy_with(path, move |_| Rc::clone(&request), connections, time)
    }

    /// As [`keep_busy`](Self::keep_busy), with an idempotency key of its own on each request.
    pub(crate) fn keep_busy_with_keys(
        &self,
        path: &str,
        request: &Rc<[u8]>,
        connections: usize,
        time: Duration,
    ) -> anyhow::Result<Answers> {
        let request = Rc::clone(request);
        let make = move |_| load::with_key(&request, &Uuid::new_v4().to_string()).into();
        self.keep_busy_with(path, make, connections, time)
    }

    fn keep_busy_with(
        &self,
        path: &str,
        make: impl Fn(u64) -> Rc<[u8]> + 'static,
        connections: usize,
        time: Duration,
    ) -> anyhow::Result<Answers> {
        let before = accounts_in_view(&Http::new(self.cards));
        let answers = load::closed_loop(self.address(path), connections, Until::Elapsed(time), make, |_| ())?;
        if path == "/account" {
            self.wait_for_view(before + answers.count)?;
        }
        Ok(answers)
    }

    /// Creates so many accounts, and returns once the view has them too.
    pub(crate) fn create_accounts(&self, count: u64, look: impl Fn(&[u8]) + 'static) -> anyhow::Result<()> {
        let before = accounts_in_view(&Http::new(self.cards));
        let request: Rc<[u8]> = load::post("/account", ACCOUNT).into();
        load::closed_loop(self.accounts, 512, Until::Answered(count), move |_| Rc::clone(&request), look)?;
        self.wait_for_view(before + count)
    }

    /// Waits until the view has so many accounts.
    pub(crate) fn wait_for_view(&self, accounts: u64) -> anyhow::Result<()> {
        let http = Http::new(self.cards);
        wait_until(&format!("the view has {accounts} accounts"), || accounts_in_view(&http) >= accounts)
    }

    /// Stops all processes as an operator does.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            let status = process.terminate();
            ensure!(status.success(), "a service ended with {status}: {:#?}", process.lines());
        }
        Ok(())
    }
}

/// Starts one of the services with its files in `folder`, and returns it with a client once it listens.
pub(crate) fn start_on_kafka(
    build: &Build,
    name: &'static str,
    folder: &Path,
    servers: &Servers,
    settings: &[(&str, &str)],
) -> (Process, Http) {
    let common = [("DATA_DIR", name), ("KAFKA_BROKERS", servers.brokers.as_str())];
    let mut process = Process::start(&build.folder.join(name), folder, &[&common, settings].concat());
    let http = process.service(name);
    (process, http)
}

/// Waits until `/readyz` answers 200.
pub(crate) fn wait_until_ready(http: &Http) -> anyhow::Result<()> {
    wait_until("a service is ready", || http.get("/readyz").status == 200)
}

/// Accounts in the view of the card service.
pub(crate) fn accounts_in_view(cards: &Http) -> u64 {
    let Value::Number(accounts) = &cards.get("/readyz").body["view"]["accounts"] else { return 0 };
    accounts.as_u64().unwrap_or_default()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) -> anyhow::Result<()> {
    let started = Instant::now();
    while !condition() {
        ensure!(started.elapsed() < VIEW_TIMEOUT, "waited {VIEW_TIMEOUT:?} in vain until {what}");
        // Starts are timed by this, so the pause is short against them.
        thread::park_timeout((started.elapsed() / 50).clamp(Duration::from_micros(200), Duration::from_millis(20)));
    }
    Ok(())
}
