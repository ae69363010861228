//! Instances of both services as processes, on one PostgreSQL database and one topic of Kafka's.

mod load;
mod settled;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tempfile::TempDir;
use test_harness::{Http, Process, binary, wait_until};

pub(crate) use self::load::{Card, Load, StopOnDrop, Writer, under_load};
pub(crate) use self::settled::{check_order, count, settle};
use crate::random::Random;

pub(crate) struct Cluster {
    pub(crate) accounts: Vec<Instance>,
    pub(crate) cards: Vec<Instance>,
    pub(crate) brokers: String,
    pub(crate) topic: String,
    pub(crate) database: String,
    _folder: TempDir,
}

/// One process, which may be away for a while.
pub(crate) struct Instance {
    service: &'static str,
    binary: PathBuf,
    folder: PathBuf,
    settings: Vec<(&'static str, String)>,
    /// `None` before it is started.
    process: Mutex<Option<Process>>,
    /// `None` while it is killed or paused: as behind a load balancer, nobody sends it new requests then.
    http: Mutex<Option<Http>>,
    /// Has a clone for each [`Lent`].
    lent: Arc<()>,
    absences: AtomicUsize,
}

impl Cluster {
    /// Starts so many instances of each service at once, and waits until all are ready.
    pub(crate) fn start(name: &str, (brokers, database): (String, String), accounts: usize, cards: usize) -> Self {
        let binaries = |service, count| vec![binary(service); count];
        let (accounts, cards) = (binaries(account_service::NAME, accounts), binaries(card_service::NAME, cards));
        let cluster = Cluster::plan(name, (brokers, database), &accounts, &cards);
        cluster.start_all();
        cluster
    }

    /// Instances of these binaries, none of them started.
    pub(crate) fn plan(
        name: &str,
        (brokers, database): (String, String),
        accounts: &[PathBuf],
        cards: &[PathBuf],
    ) -> Self {
        let folder = TempDir::new().expect("a folder");
        // A folder's random name, for want of another source of one.
        let topic = folder.path().file_name().expect("a name").to_string_lossy().replace('.', "");
        let topic = format!("tandem-{name}-{topic}");
        let settings = vec![
            ("KAFKA_BROKERS", brokers.clone()),
            ("KAFKA_TOPIC", topic.clone()),
            ("DATABASE_URL", database.clone()),
        ];
        let plan = |service: &'static str, number: usize, binary: &PathBuf| {
            let folder = folder.path().join(format!("{service}-{number}"));
            std::fs::create_dir(&folder).expect("a folder");
            let mut settings = settings.clone();
            if service == card_service::NAME {
                settings.push(("KAFKA_GROUP_ID", topic.clone()));
            }
            let (process, http) = (Mutex::new(None), Mutex::new(None));
            let (binary, lent, absences) = (binary.clone(), Arc::new(()), AtomicUsize::new(0));
            Instance { service, binary, folder, settings, process, http, lent, absences }
        };
        let of = |service: &'static str, binaries: &[PathBuf]| {
            (0..).zip(binaries).map(|(number, binary)| plan(service, number, binary)).collect()
        };
        let (accounts, cards) = (of(account_service::NAME, accounts), of(card_service::NAME, cards));
        Cluster { accounts, cards, brokers, topic, database, _folder: folder }
    }

    /// As planned, but with this setting, too.
    pub(crate) fn with_setting(mut self, name: &'static str, value: &str) -> Self {
        let all = self.accounts.iter_mut().chain(&mut self.cards);
        all.for_each(|instance| instance.settings.push((name, value.to_owned())));
        self
    }

    /// Starts all at once, and waits until they are ready.
    pub(crate) fn start_all(&self) {
        self.all().for_each(Instance::start);
        self.all().for_each(Instance::wait_until_ready);
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Instance> {
        self.accounts.iter().chain(&self.cards)
    }

    /// Those that are there.
    pub(crate) fn there(&self) -> impl Iterator<Item = &Instance> {
        self.all().filter(|instance| instance.http().is_some())
    }

    /// The account instance that publishes. There must be load.
    pub(crate) fn publisher(&self) -> &Instance {
        let published = || self.accounts.iter().map(|instance| instance.readyz()["relay"]["published"].as_u64());
        let before: Vec<_> = published().collect();
        wait_until("an instance publishes", || {
            published().zip(&before).position(|(now, before)| now > *before).map(|number| &self.accounts[number])
        })
    }
}

/// A client, and that it is in use: whoever takes the instance away waits for that.
pub(crate) struct Lent {
    pub(crate) http: Http,
    _lent: Arc<()>,
}

/// One of those that are there.
pub(crate) fn any(instances: &[Instance], random: &mut Random) -> Lent {
    let mut there: Vec<_> = instances.iter().filter_map(Instance::lend).collect();
    assert!(!there.is_empty(), "never all are away");
    there.swap_remove(random.below(there.len()))
}

impl Instance {
    /// A client of it, unless it is away.
    pub(crate) fn http(&self) -> Option<Http> {
        lock(&self.http).clone()
    }

    fn lend(&self) -> Option<Lent> {
        let http = lock(&self.http);
        http.as_ref().map(|http| Lent { http: http.clone(), _lent: Arc::clone(&self.lent) })
    }

    /// Gives it a setting that the others do not have.
    pub(crate) fn set(&mut self, name: &'static str, value: String) {
        self.settings.push((name, value));
    }

    /// Whether it has a view of the accounts.
    pub(crate) fn has_view(&self) -> bool {
        self.service == card_service::NAME
    }

    /// Starts it, without a wait.
    pub(crate) fn start(&self) {
        self.start_with(&[]);
    }

    fn start_with(&self, more: &[(&str, &str)]) {
        let settings = self.settings.iter().map(|(name, value)| (*name, value.as_str()));
        let settings: Vec<_> = settings.chain(more.iter().copied()).collect();
        *lock(&self.process) = Some(Process::start(&self.binary, &self.folder, &settings));
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        self.take_http();
        self.with_process(Process::kill);
    }

    /// A signal that asks it to end. Panics if it does not end cleanly.
    pub(crate) fn stop(&self, signal: i32) {
        self.take_http();
        self.with_process(|process| {
            process.signal(signal);
            let status = process.wait();
            assert!(status.success(), "{} ended with {status} after signal {signal}", self.folder.display());
        });
    }

    /// Starts it again, and waits until it is ready.
    pub(crate) fn restart(&self) {
        self.restart_with(&[]);
    }

    /// As [`Instance::restart`], with settings for this time only.
    pub(crate) fn restart_with(&self, more: &[(&str, &str)]) {
        self.start_with(more);
        self.wait_until_ready();
    }

    /// SIGSTOP. Gives the client that it had.
    pub(crate) fn pause(&self) -> Http {
        let http = self.take_http().expect("it is there");
        self.with_process(|process| process.signal(libc::SIGSTOP));
        http
    }

    /// SIGSTOP, as behind a load balancer that has just noticed: nothing is on its way to it but what it has in hand itself.
    pub(crate) fn pause_unused(&self) -> Http {
        let http = self.take_away();
        self.with_process(|process| process.signal(libc::SIGSTOP));
        http
    }

    /// SIGCONT. Gives a client with connections of its own: the time of those from before may have run out in the pause.
    pub(crate) fn resume(&self, http: Http) -> Http {
        self.with_process(|process| process.signal(libc::SIGCONT));
        let http = Http::new(http.address());
        *lock(&self.http) = Some(http.clone());
        http
    }

    /// Nobody sends it anything any more, and what was sent is answered. Gives the client that it had.
    pub(crate) fn take_away(&self) -> Http {
        let http = self.take_http().expect("it is there");
        wait_until("nobody uses it", || (Arc::strong_count(&self.lent) == 1).then_some(()));
        http
    }

    /// From now on nobody sends it new requests. Gives the client that it had.
    fn take_http(&self) -> Option<Http> {
        self.absences.fetch_add(1, Ordering::SeqCst);
        lock(&self.http).take()
    }

    /// How often it has been away. As long as this stays the same, its connections must last.
    pub(crate) fn absences(&self) -> usize {
        self.absences.load(Ordering::SeqCst)
    }

    /// Does something to its process.
    pub(crate) fn with_process<T>(&self, work: impl FnOnce(&mut Process) -> T) -> T {
        work(lock(&self.process).as_mut().expect("it was started"))
    }

    pub(crate) fn wait_until_ready(&self) {
        let http = self.with_process(|process| process.ready_service(self.service));
        *lock(&self.http) = Some(http);
    }

    pub(crate) fn readyz(&self) -> Value {
        self.http().map_or(Value::Null, |http| Http::new(http.address()).get("/readyz").body)
    }

    /// What it has to say that is not of every day.
    fn complaints(&self) -> Vec<String> {
        let is_daily = |line: &String| line.contains("account event") || line.contains("Updated account cache");
        let lines = lock(&self.process).as_ref().map(Process::lines).unwrap_or_default();
        lines.into_iter().filter(|line| !is_daily(line)).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for instance in self.all() {
                let state = instance.http().and_then(|http| http.try_send("GET", "/readyz", &[], Vec::new()).ok());
                let (state, complaints) = (state.map(|answer| answer.raw), instance.complaints());
                eprintln!("{}: {state:?} {complaints:#?}", instance.folder.display());
            }
        }
    }
}

/// A thread that failed with it has failed the test already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
