//! Two account and three card instances as processes, on one PostgreSQL database and one topic.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tempfile::TempDir;
use test_harness::{Http, Process, binary, wait_until};

use crate::kafka::Kafka;
use crate::random::Random;

const ACCOUNT_INSTANCES: usize = 2;
const CARD_INSTANCES: usize = 3;

pub(super) struct Cluster {
    pub(super) accounts: Vec<Instance>,
    pub(super) cards: Vec<Instance>,
    pub(super) database: String,
    _folder: TempDir,
}

/// One process, which may be away for a while.
pub(super) struct Instance {
    service: &'static str,
    folder: PathBuf,
    settings: Vec<(&'static str, String)>,
    process: Mutex<Process>,
    /// `None` while it is killed or paused: as behind a load balancer, nobody sends it new requests then.
    http: Mutex<Option<Http>>,
}

impl Cluster {
    /// Starts all of it at once, and waits until all of it is ready.
    pub(super) fn start(kafka: &Kafka, database: String) -> Self {
        let folder = TempDir::new().expect("a folder");
        let mut settings = kafka.settings();
        settings.push(("DATABASE_URL", database.clone()));
        let start = |service, number: usize| {
            let folder = folder.path().join(format!("{service}-{number}"));
            std::fs::create_dir(&folder).expect("a folder");
            Instance::start(service, folder, settings.clone())
        };
        let accounts = (0..ACCOUNT_INSTANCES).map(|number| start(account_service::NAME, number)).collect();
        let cards = (0..CARD_INSTANCES).map(|number| start(card_service::NAME, number)).collect();
        let cluster = Cluster { accounts, cards, database, _folder: folder };
        cluster.all().for_each(Instance::wait_until_ready);
        cluster
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Instance> {
        self.accounts.iter().chain(&self.cards)
    }

    /// The account instance that publishes. There must be load.
    pub(super) fn publisher(&self) -> &Instance {
        let published = || self.accounts.iter().map(|instance| instance.readyz()["relay"]["published"].as_u64());
        let before: Vec<_> = published().collect();
        wait_until("an instance publishes", || {
            published().zip(&before).position(|(now, before)| now > *before).map(|number| &self.accounts[number])
        })
    }
}

/// One of those that are there.
pub(super) fn any(instances: &[Instance], random: &mut Random) -> Http {
    let there: Vec<_> = instances.iter().filter_map(Instance::http).collect();
    random.pick(&there).expect("never all are away").clone()
}

impl Instance {
    fn start(service: &'static str, folder: PathBuf, settings: Vec<(&'static str, String)>) -> Self {
        let process = Mutex::new(start(service, &folder, &settings));
        Instance { service, folder, settings, process, http: Mutex::new(None) }
    }

    /// A client of it, unless it is away.
    pub(super) fn http(&self) -> Option<Http> {
        lock(&self.http).clone()
    }

    /// SIGKILL.
    pub(super) fn kill(&self) {
        *lock(&self.http) = None;
        lock(&self.process).kill();
    }

    /// Starts it again, and waits until it is ready.
    pub(super) fn restart(&self) {
        *lock(&self.process) = start(self.service, &self.folder, &self.settings);
        self.wait_until_ready();
    }

    /// SIGSTOP. Gives the client that it had.
    pub(super) fn pause(&self) -> Http {
        let http = lock(&self.http).take().expect("it is there");
        lock(&self.process).signal(libc::SIGSTOP);
        http
    }

    /// SIGCONT. Gives a client with connections of its own: the time of those from before may have run out in the pause.
    pub(super) fn resume(&self, http: Http) -> Http {
        lock(&self.process).signal(libc::SIGCONT);
        let http = Http::new(http.address());
        *lock(&self.http) = Some(http.clone());
        http
    }

    pub(super) fn wait_until_ready(&self) {
        let http = lock(&self.process).ready_service(self.service);
        *lock(&self.http) = Some(http);
    }

    pub(super) fn readyz(&self) -> Value {
        self.http().map_or(Value::Null, |http| Http::new(http.address()).get("/readyz").body)
    }

    /// What it has to say that is not of every day.
    fn complaints(&self) -> Vec<String> {
        let is_daily = |line: &String| line.contains("account event") || line.contains("Updated account cache");
        lock(&self.process).lines().into_iter().filter(|line| !is_daily(line)).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.all().for_each(|instance| eprintln!("{}: {:#?}", instance.folder.display(), instance.complaints()));
        }
    }
}

fn start(service: &str, folder: &std::path::Path, settings: &[(&'static str, String)]) -> Process {
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Process::start(&binary(service), folder, &settings)
}

/// A thread that failed with it has failed the test already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
