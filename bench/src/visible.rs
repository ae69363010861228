//! Commit to visible: how long after an account is committed the card service's view has it.
//!
//! Both services run in this process, over HTTP, with whatever log and databases are asked for. Accounts are made on a
//! fixed schedule, so a stall shows in all that it delays. Visible is the moment when the record has been applied
//! to the view: the log is wrapped to see it. Committed is the moment when the answer has arrived, or when the relay begins
//! to publish if that is earlier: the commit itself ends a little before either.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use database::DatabaseUrl;
use event_log::{
    EmbeddedLog, EmbeddedSettings, EventLog, GroupReader, LogError, Positions, Publisher, Reader, Record, RecordRef,
};
use hdrhistogram::Histogram;
use process::Clock;
use serde_json::Value;
use test_harness::{Http, wait_until};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::figure::Figure;
use crate::load::{self, Request, Schedule, micros};
use crate::{ACCOUNT, quantile};

/// Accounts a second over the embedded log, for so long, and by more connections than are ever busy at once.
const EMBEDDED: Schedule = Schedule { rate: 500, seconds: 20, connections: 32 };

/// What the services run on.
pub(crate) struct Setup {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) account_database: DatabaseUrl,
    pub(crate) card_database: DatabaseUrl,
}

/// How long it took, in microseconds.
pub(crate) struct Latencies {
    pub(crate) commit_to_visible: Histogram<u64>,
    /// From when the request was due.
    pub(crate) due_to_visible: Histogram<u64>,
    pub(crate) due_to_answered: Histogram<u64>,
}

impl Latencies {
    /// As lines of the table; `what` says on what it ran, and `bounds` are those of p50 and p99 from
    /// commit to visible, in milliseconds.
    pub(crate) fn figures(&self, what: &str, bounds: [f64; 2]) -> Vec<Figure> {
        let both = |what: &str, histogram: &Histogram<u64>| {
            [(0.5, "p50"), (0.99, "p99")].map(|(at, name)| quantile(format!("{what}, {name}"), histogram, at))
        };
        let [p50, p99] = both(&format!("commit to visible, {what}"), &self.commit_to_visible);
        let mut figures = vec![p50.at_most(bounds[0]), p99.at_most(bounds[1])];
        figures.extend(both("  POST /account sent to visible", &self.due_to_visible));
        figures.extend(both("  POST /account sent to answered", &self.due_to_answered));
        figures
    }
}

/// Over SQLite and the embedded log, as the all-in-one runs.
pub(crate) fn measure() -> anyhow::Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let file = |name| DatabaseUrl::Sqlite(folder.path().join(name));
    let log = EmbeddedLog::open(EmbeddedSettings::at(folder.path().join("event-log.db")))?;
    let setup = Setup { log: Arc::new(log), account_database: file("account.db"), card_database: file("card.db") };
    let latencies = run(setup, EMBEDDED, 0)?;
    Ok(latencies.figures("500 accounts a second", [2.0, 20.0]))
}

/// Makes accounts by `schedule`. Those of the first `warm_up` seconds do not count.
pub(crate) fn run(setup: Setup, schedule: Schedule, warm_up: u32) -> anyhow::Result<Latencies> {
    println!("making {} accounts a second for {} s", schedule.rate, schedule.seconds);
    let folder = tempfile::tempdir()?;
    let seen = Arc::new(Seen::default());
    let log = Arc::new(WatchedLog { log: setup.log, seen: Arc::clone(&seen) });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let shutdown = CancellationToken::new();
    let bind = || TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let (account_listener, card_listener) = (runtime.block_on(bind())?, runtime.block_on(bind())?);
    let (accounts, cards) = (account_listener.local_addr()?, card_listener.local_addr()?);
    let account = account_service::Config { database: setup.account_database, cors: None, clock: Clock::system() };
    let card = card_service::Config {
        database: setup.card_database,
        data_dir: folder.path().to_owned(),
        group: card_service::DEFAULT_GROUP.to_owned(),
        view_max_age: None,
        cors: None,
        clock: Clock::system(),
    };
    let services = [
        runtime.spawn(account_service::run(account, account_listener, log.clone(), shutdown.clone())),
        runtime.spawn(card_service::run(card, card_listener, log, shutdown.clone())),
    ];
    for service in [accounts, cards].map(Http::new) {
        wait_until("the services are ready", || (service.get("/readyz").status == 200).then_some(()));
    }

    let answers = make_accounts(accounts, schedule)?;
    wait_until("all are visible", || (lock(&seen.visible).len() >= answers.len()).then_some(()));
    shutdown.cancel();
    for service in services {
        runtime.block_on(service)??;
    }
    latencies(&answers, &seen, Duration::from_secs(warm_up.into()))
}

/// One POST, as its client saw it.
struct Answer {
    account_id: Vec<u8>,
    due: Instant,
    answered: Instant,
}

fn make_accounts(address: SocketAddr, schedule: Schedule) -> anyhow::Result<Vec<Answer>> {
    let answers = Mutex::new(Vec::new());
    let tally = load::open_loop(address, &Request::post("/account", ACCOUNT), schedule, |answer| {
        let body: Value = serde_json::from_slice(answer.body).unwrap_or_default();
        let account_id = body["id"].as_str().unwrap_or_default().as_bytes().to_vec();
        lock(&answers).push(Answer { account_id, due: answer.due, answered: answer.answered });
    })?;
    ensure!(tally.errors == 0, "{} of the requests failed", tally.errors);
    Ok(answers.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn latencies(answers: &[Answer], seen: &Seen, warm_up: Duration) -> anyhow::Result<Latencies> {
    let (published, visible) = (lock(&seen.published), lock(&seen.visible));
    let histogram = || Histogram::<u64>::new(3);
    let mut latencies =
        Latencies { commit_to_visible: histogram()?, due_to_visible: histogram()?, due_to_answered: histogram()? };
    let counts_from = answers.iter().map(|answer| answer.due).min().context("no account was made")? + warm_up;
    for Answer { account_id, due, answered } in answers.iter().filter(|answer| answer.due >= counts_from) {
        let (published, visible) = (published.get(account_id), visible.get(account_id));
        let (published, visible) = published.zip(visible).context("an account was never published")?;
        let committed = *published.min(answered);
        latencies.due_to_answered.record(micros(*answered - *due))?;
        latencies.commit_to_visible.record(micros(visible.saturating_duration_since(committed)))?;
        latencies.due_to_visible.record(micros(*visible - *due))?;
    }
    Ok(latencies)
}

/// When the relay began to publish a record, and when the view had it, by the record's key.
#[derive(Default)]
struct Seen {
    published: Mutex<HashMap<Vec<u8>, Instant>>,
    visible: Mutex<HashMap<Vec<u8>, Instant>>,
}

impl Seen {
    fn note_published(&self, records: &[Record]) {
        let now = Instant::now();
        lock(&self.published).extend(records.iter().filter_map(|record| Some((record.key.clone()?, now))));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A log, with a look at what goes in and what comes out.
struct WatchedLog {
    log: Arc<dyn EventLog>,
    seen: Arc<Seen>,
}

impl EventLog for WatchedLog {
    fn describe(&self) -> String {
        self.log.describe()
    }

    fn prepare(&self) -> Result<(), LogError> {
        self.log.prepare()
    }

    fn publisher(&self, name: &str) -> Result<Box<dyn Publisher>, LogError> {
        Ok(Box::new(WatchedPublisher { publisher: self.log.publisher(name)?, seen: Arc::clone(&self.seen) }))
    }

    fn reader(&self, from: &Positions) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(WatchedReader { reader: self.log.reader(from)?, seen: Arc::clone(&self.seen) }))
    }

    fn group_reader(&self, group: &str) -> Result<Box<dyn GroupReader>, LogError> {
        self.log.group_reader(group)
    }

    fn end_offsets(&self, timeout: Duration) -> Result<Positions, LogError> {
        self.log.end_offsets(timeout)
    }
}

struct WatchedPublisher {
    publisher: Box<dyn Publisher>,
    seen: Arc<Seen>,
}

impl Publisher for WatchedPublisher {
    fn position(&self) -> Option<u64> {
        self.publisher.position()
    }

    fn publish(&mut self, records: &[Record], position: u64) -> Result<(), LogError> {
        self.seen.note_published(records);
        self.publisher.publish(records, position)
    }

    fn append(&mut self, records: &[Record], position: u64) -> Result<(), LogError> {
        self.seen.note_published(records);
        self.publisher.append(records, position)
    }

    fn commit_due(&self) -> Option<Duration> {
        self.publisher.commit_due()
    }

    fn commit(&mut self) -> Result<(), LogError> {
        self.publisher.commit()
    }

    fn gathering_time(&self) -> Duration {
        self.publisher.gathering_time()
    }

    fn check(&mut self) -> Result<(), LogError> {
        self.publisher.check()
    }
}

struct WatchedReader {
    reader: Box<dyn Reader>,
    seen: Arc<Seen>,
}

impl Reader for WatchedReader {
    fn poll(&mut self, timeout: Duration, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError> {
        self.reader.poll(timeout, &mut |record| {
            apply(record);
            lock(&self.seen.visible).insert(record.key.unwrap_or_default().to_vec(), Instant::now());
        })
    }

    fn positions(&self) -> Positions {
        self.reader.positions()
    }

    fn durable_positions(&self) -> Positions {
        self.reader.durable_positions()
    }
}
