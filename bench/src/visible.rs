//! Commit to visible: how long after an account is committed the card service's view has it, over the embedded log.
//!
//! Both services run in this process as they do in the all-in-one, over HTTP, SQLite and the embedded log. Accounts are
//! made on a fixed schedule, so a stall shows in all that it delays. Visible is the moment when the record has been applied
//! to the view: the log is wrapped to see it. Committed is the moment when the answer has arrived, or when the relay begins
//! to publish if that is earlier: the commit itself ends a little before either.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use event_log::{
    EmbeddedLog, EmbeddedSettings, EventLog, GroupReader, LogError, Positions, Publisher, Reader, Record, RecordRef,
};
use hdrhistogram::Histogram;
use process::Clock;
use serde_json::json;
use test_harness::{Http, wait_until};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::Figure;

/// Accounts a second.
const RATE: u32 = 500;

/// How long.
const SECONDS: u32 = 20;

/// Connections that make them, more than are ever busy at once.
const CONNECTIONS: usize = 32;

pub(crate) fn measure() -> anyhow::Result<Vec<Figure>> {
    println!("making {RATE} accounts a second for {SECONDS} s");
    let folder = tempfile::tempdir()?;
    let seen = Arc::new(Seen::default());
    let embedded = EmbeddedLog::open(EmbeddedSettings::at(folder.path().join("event-log.db")))?;
    let log = Arc::new(WatchedLog { log: Arc::new(embedded), seen: Arc::clone(&seen) });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let shutdown = CancellationToken::new();
    let bind = || TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let (account_listener, card_listener) = (runtime.block_on(bind())?, runtime.block_on(bind())?);
    let (accounts, cards) = (account_listener.local_addr()?, card_listener.local_addr()?);
    let file = |name| database::DatabaseUrl::Sqlite(folder.path().join(name));
    let account = account_service::Config { database: file("account.db"), cors: None, clock: Clock::system() };
    let card = card_service::Config {
        database: file("card.db"),
        group: card_service::DEFAULT_GROUP.to_owned(),
        view_max_age: None,
        cors: None,
        clock: Clock::system(),
    };
    let services = [
        runtime.spawn(account_service::run(account, account_listener, log.clone(), shutdown.clone())),
        runtime.spawn(card_service::run(card, card_listener, log, shutdown.clone())),
    ];
    let cards = Http::new(cards);
    wait_until("the card service is ready", || (cards.get("/readyz").status == 200).then_some(()));

    let answers = make_accounts(accounts);
    wait_until("all are visible", || (seen.visible.lock().ok()?.len() == answers.len()).then_some(()));
    shutdown.cancel();
    for service in services {
        runtime.block_on(service)??;
    }
    figures(&answers, &seen)
}

/// One POST, as its client saw it.
struct Answered {
    account_id: String,
    intended: Instant,
    answered: Instant,
}

fn make_accounts(address: SocketAddr) -> Vec<Answered> {
    let next = AtomicU32::new(0);
    let start = Instant::now() + Duration::from_millis(50);
    let answers = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            let http = Http::new(address);
            let (next, answers) = (&next, &answers);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= RATE * SECONDS {
                        break;
                    }
                    let intended = start + Duration::from_secs(1) / RATE * number;
                    std::thread::sleep(intended.saturating_duration_since(Instant::now()));
                    let answer = http.post("/account", &json!({"beholder_name": "John Doe", "country_code": "US"}));
                    let answered = Instant::now();
                    let account_id = answer.text("id").to_owned();
                    lock(answers).push(Answered { account_id, intended, answered });
                }
            });
        }
    });
    answers.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn figures(answers: &[Answered], seen: &Seen) -> anyhow::Result<Vec<Figure>> {
    let (published, visible) = (lock(&seen.published), lock(&seen.visible));
    let mut post = Histogram::<u64>::new(3)?;
    let mut commit_to_visible = Histogram::<u64>::new(3)?;
    let mut sent_to_visible = Histogram::<u64>::new(3)?;
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    for answer in answers {
        let id = answer.account_id.as_bytes();
        let committed = published[id].min(answer.answered);
        post.record(micros(answer.answered - answer.intended))?;
        commit_to_visible.record(micros(visible[id].saturating_duration_since(committed)))?;
        sent_to_visible.record(micros(visible[id] - answer.intended))?;
    }
    let at = |histogram: &Histogram<u64>, quantile| {
        format!("{:.2} ms", histogram.value_at_quantile(quantile) as f64 / 1_000.0)
    };
    Ok(vec![
        Figure::new("commit to visible, 500 accounts a second, p50", at(&commit_to_visible, 0.5), "at most 2 ms"),
        Figure::new("commit to visible, 500 accounts a second, p99", at(&commit_to_visible, 0.99), "at most 20 ms"),
        Figure::new("  POST /account sent to visible, p50", at(&sent_to_visible, 0.5), ""),
        Figure::new("  POST /account sent to visible, p99", at(&sent_to_visible, 0.99), ""),
        Figure::new("  POST /account sent to answered, p50", at(&post, 0.5), ""),
        Figure::new("  POST /account sent to answered, p99", at(&post, 0.99), ""),
    ])
}

/// When the relay began to publish a record, and when the view had it, by the record's key.
#[derive(Default)]
struct Seen {
    published: Mutex<HashMap<Vec<u8>, Instant>>,
    visible: Mutex<HashMap<Vec<u8>, Instant>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The embedded log, with a look at what goes in and what comes out.
struct WatchedLog {
    log: Arc<EmbeddedLog>,
    seen: Arc<Seen>,
}

impl EventLog for WatchedLog {
    fn describe(&self) -> String {
        self.log.describe()
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
        let now = Instant::now();
        lock(&self.seen.published).extend(records.iter().filter_map(|record| Some((record.key.clone()?, now))));
        self.publisher.publish(records, position)
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
