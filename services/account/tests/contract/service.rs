//! The service under test, and what its tests have in common.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use account_service::Config;
use clock::Clock;
use event_log::{Committed, EventLog, GroupReader, LogError, Positions, Publisher, Reader, Record};
use http_server::HttpConfig;
use postgres::DatabaseUrl;
use serde_json::{Value, json};
use tempfile::TempDir;
use test_harness::{
    Answer, Http, InProcess, database_url, forget_event_log, open_event_log, wait_until, with_postgres,
};

/// 2025-11-25T10:30:00Z, where a fixed clock starts.
pub(crate) const START_MICROS: i64 = 1_764_066_600_000_000;

/// An id that no account has.
pub(crate) const UNKNOWN_ID: &str = "550e8400-e29b-41d4-a716-446655440000";

/// How long brokers may take to say where the log ends.
const LOG_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one look for records may wait. The embedded log has them at once, brokers send them.
const LOOK: Duration = Duration::from_millis(10);

/// An account service with a database and an event log of its own. It derefs to its HTTP client.
pub(crate) struct TestService {
    // The service ends first, then its log, then the folder of both.
    running: InProcess,
    log: Arc<dyn EventLog>,
    folder: TempDir,
    clock: Clock,
    http: HttpConfig,
    faults: Faults,
}

/// A record with the place it stands in.
#[derive(Debug, PartialEq)]
pub(crate) struct Placed {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) record: Record,
}

impl TestService {
    pub(crate) fn start() -> Self {
        Self::start_with(Clock::system(), None)
    }

    pub(crate) fn start_with(clock: Clock, cors: Option<&str>) -> Self {
        let cors = cors.map(|origin| origin.parse().expect("an origin"));
        Self::start_with_http(clock, HttpConfig { cors, ..HttpConfig::default() })
    }

    pub(crate) fn start_with_http(clock: Clock, http: HttpConfig) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open_event_log(folder.path());
        let faults = Faults::default();
        let running = run(folder.path(), &log, &clock, &http, &faults);
        TestService { running, log, folder, clock, http, faults }
    }

    /// Takes the event log away from the service, or gives it back.
    pub(crate) fn set_log_away(&self, away: bool) {
        self.set_publishes_left(if away { 0 } else { i64::MAX });
    }

    /// Takes the event log away after it has taken so many batches more.
    pub(crate) fn set_publishes_left(&self, batches: i64) {
        self.faults.publishes_left.store(batches, Ordering::SeqCst);
    }

    /// Has the log say to its next publisher that it may lose records.
    pub(crate) fn set_log_may_lose_records(&self) {
        self.faults.may_lose_records.store(true, Ordering::SeqCst);
    }

    /// Whether the log has what the outbox held when the service started last.
    pub(crate) fn is_backlog_published(&self) -> bool {
        self.faults.backlog_published.load(Ordering::SeqCst)
    }

    /// The log, without the faults that the test gives it.
    pub(crate) fn event_log(&self) -> &Arc<dyn EventLog> {
        &self.log
    }

    /// Where its database is.
    pub(crate) fn database(&self) -> DatabaseUrl {
        database_url(self.folder.path(), "account").parse().expect("a database URL")
    }

    /// Ends the service, so that everything it has to publish is in the log, and closes the log; then starts both on
    /// the same files.
    pub(crate) fn restart(self) -> Self {
        self.restart_between(|_| ())
    }

    /// As [`TestService::restart`], with what `between` does to the database meanwhile.
    pub(crate) fn restart_between(self, between: impl FnOnce(&DatabaseUrl)) -> Self {
        let database = self.database();
        let TestService { mut running, log, folder, clock, http, faults } = self;
        running.stop().expect("a clean end");
        faults.backlog_published.store(false, Ordering::SeqCst);
        between(&database);
        close(log);
        let log = open_event_log(folder.path());
        let running = run(folder.path(), &log, &clock, &http, &faults);
        TestService { running, log, folder, clock, http, faults }
    }

    /// Ends the service, runs `between`, and starts the service again; the log stays open.
    pub(crate) fn restart_beside(mut self, between: impl FnOnce(&Self)) -> Self {
        self.running.stop().expect("a clean end");
        between(&self);
        self.running = run(self.folder.path(), &self.log, &self.clock, &self.http, &self.faults);
        self
    }

    /// Ends the service and throws its log away; `between` then has the service while the new log is still away, and it
    /// gets the log back after that.
    pub(crate) fn restart_with_an_empty_log(self, between: impl FnOnce(&Self)) -> Self {
        let TestService { mut running, log, folder, clock, http, faults } = self;
        running.stop().expect("a clean end");
        close(log);
        forget_event_log(folder.path());
        let log = open_event_log(folder.path());
        faults.publishes_left.store(0, Ordering::SeqCst);
        let running = run(folder.path(), &log, &clock, &http, &faults);
        let service = TestService { running, log, folder, clock, http, faults };
        between(&service);
        service.set_log_away(false);
        service
    }

    /// Holds the database so that nobody can write to it, while `meanwhile` runs.
    pub(crate) fn with_the_database_held(&self, meanwhile: impl FnOnce()) {
        let url = database_url(self.folder.path(), "account");
        match url.strip_prefix("sqlite:") {
            Some(path) => {
                let holder = rusqlite::Connection::open(path).expect("a database");
                holder.execute_batch("BEGIN IMMEDIATE").expect("nobody else holds it");
                meanwhile();
                holder.execute_batch("ROLLBACK").expect("a transaction");
            }
            None => with_postgres(&url, async |client| {
                client.batch_execute("BEGIN; LOCK TABLE account.ledger, account.accounts IN EXCLUSIVE MODE").await?;
                tokio::task::block_in_place(meanwhile);
                client.batch_execute("ROLLBACK").await
            }),
        }
    }

    /// Ends the service, so that everything it has to publish is in the log, and reads that.
    pub(crate) fn stop_and_read_log(mut self) -> Vec<Placed> {
        self.running.stop().expect("a clean end");
        self.log()
    }

    /// Whether its database is on a server, which instances share.
    pub(crate) fn is_on_postgres(&self) -> bool {
        database_url(self.folder.path(), "account").starts_with("postgres")
    }

    /// A second service on the same files, to see it refused.
    pub(crate) fn start_another(&self) -> InProcess {
        run(self.folder.path(), &self.log, &self.clock, &self.http, &self.faults)
    }

    /// Starts another service on a copy of the database that [`copy_database`] made in `folder`, with the same log.
    pub(crate) fn start_copy(&self, folder: &Path) -> InProcess {
        run(folder, &self.log, &self.clock, &self.http, &Faults::default())
    }

    /// Ends the service, and has it go on with the log of `other` while `meanwhile` runs.
    pub(crate) fn with_the_log_of(self, other: &Self, meanwhile: impl FnOnce(&Http)) {
        let TestService { mut running, folder, clock, http, .. } = self;
        running.stop().expect("a clean end");
        let moved = run(folder.path(), &other.log, &clock, &http, &Faults::default());
        meanwhile(moved.http());
    }

    /// Waits until the service takes no writes, and returns why.
    #[track_caller]
    pub(crate) fn superseded(&self) -> String {
        superseded(self)
    }

    /// Waits until the service ends by itself, and returns its error.
    pub(crate) fn failure(&mut self) -> String {
        self.running.wait().expect_err("it ends with an error").to_string()
    }

    /// All that is in the log now, each partition's records in order.
    pub(crate) fn log(&self) -> Vec<Placed> {
        let ends = self.log.end_offsets(LOG_TIMEOUT).expect("a log that is there");
        let mut reader = self.log.reader(&Positions::new()).expect("a log that is there");
        let mut records = Vec::new();
        while ends.iter().any(|(partition, end)| reader.positions()[partition] < *end) {
            let mut take = |record: event_log::RecordRef<'_>| {
                let (partition, offset) = (record.partition, record.offset);
                records.push(Placed { partition, offset, record: record.to_record() });
            };
            reader.poll(LOOK, &mut take).expect("a log that is there");
        }
        records
    }

    /// The log once it has `count` records, and panics if it has more.
    pub(crate) fn log_of(&self, count: usize) -> Vec<Placed> {
        let records = wait_until("the events are in the log", || Some(self.log()).filter(|log| log.len() >= count));
        assert_eq!(records.len(), count, "{records:#?}");
        records
    }

    /// `POST /account`
    #[track_caller]
    pub(crate) fn create(&self, beholder_name: &str, country_code: &str) -> Answer {
        let answer = self.post("/account", &json!({"beholder_name": beholder_name, "country_code": country_code}));
        assert_eq!(answer.status, 201, "{}", answer.raw);
        answer
    }

    /// The id of a new account.
    #[track_caller]
    pub(crate) fn new_id(&self) -> String {
        self.create("John Doe", "US").text("id").to_owned()
    }

    /// The id of a new account that is deleted.
    #[track_caller]
    pub(crate) fn deleted_id(&self) -> String {
        let id = self.new_id();
        self.delete(&account(&id)).expect(200);
        id
    }

    /// `PATCH /account?id=`
    pub(crate) fn patch(&self, id: &str, body: &Value) -> Answer {
        self.send_json("PATCH", &account(id), body)
    }

    /// `method /account?id=` under the condition of `If-Match`
    pub(crate) fn send_if_match(&self, method: &str, id: &str, if_match: &str, body: &Value) -> Answer {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.send(method, &account(id), &[("If-Match", if_match)], body)
    }

    /// `GET /accounts` with this query, which answers 200.
    #[track_caller]
    pub(crate) fn list(&self, query: &str) -> Value {
        self.get(&format!("/accounts{query}")).expect(200)
    }

    /// The ids of a page.
    #[track_caller]
    pub(crate) fn listed_ids(&self, query: &str) -> Vec<String> {
        ids(&self.list(query))
    }
}

impl Deref for TestService {
    type Target = Http;

    fn deref(&self) -> &Http {
        self.running.http()
    }
}

fn close(log: Arc<dyn EventLog>) {
    assert_eq!(Arc::strong_count(&log), 1, "nobody holds on to the log");
}

fn run(folder: &Path, log: &Arc<dyn EventLog>, clock: &Clock, http: &HttpConfig, faults: &Faults) -> InProcess {
    let database = database_url(folder, "account").parse().expect("a database URL");
    let (http, clock) = (http.clone(), clock.clone());
    let config = Config { database, http, clock, backlog_published: faults.backlog_published.clone() };
    let log = Arc::new(FaultyLog { log: Arc::clone(log), faults: faults.clone() });
    InProcess::start(|listener, shutdown| account_service::run(config, listener, log, shutdown))
}

/// What is wrong with the log. Clones share it.
#[derive(Debug, Clone)]
struct Faults {
    /// How many more batches it takes before it is away.
    publishes_left: Arc<AtomicI64>,
    /// What it says of itself to the next publisher.
    may_lose_records: Arc<AtomicBool>,
    /// Set by the service: the log has what the outbox held at the start.
    backlog_published: Arc<AtomicBool>,
}

impl Default for Faults {
    fn default() -> Self {
        Faults {
            publishes_left: Arc::new(AtomicI64::new(i64::MAX)),
            may_lose_records: Arc::default(),
            backlog_published: Arc::default(),
        }
    }
}

impl Faults {
    fn check(&self) -> Result<(), LogError> {
        match self.publishes_left.load(Ordering::SeqCst) <= 0 {
            true => Err(LogError::Unavailable("the test took it away".to_owned())),
            false => Ok(()),
        }
    }
}

/// The log as the service under test is given it: the log of the test, with its faults.
struct FaultyLog {
    log: Arc<dyn EventLog>,
    faults: Faults,
}

impl EventLog for FaultyLog {
    fn describe(&self) -> String {
        self.log.describe()
    }

    fn prepare(&self) -> Result<(), LogError> {
        self.faults.check()?;
        self.log.prepare()
    }

    fn publisher(&self, name: &str) -> Result<Box<dyn Publisher>, LogError> {
        self.faults.check()?;
        Ok(Box::new(FaultyPublisher { publisher: self.log.publisher(name)?, faults: self.faults.clone() }))
    }

    fn committed(&self, name: &str, timeout: Duration) -> Result<Option<Committed>, LogError> {
        self.faults.check()?;
        self.log.committed(name, timeout)
    }

    fn reader(&self, from: &Positions) -> Result<Box<dyn Reader>, LogError> {
        self.log.reader(from)
    }

    fn group_reader(&self, group: &str) -> Result<Box<dyn GroupReader>, LogError> {
        self.log.group_reader(group)
    }

    fn end_offsets(&self, timeout: Duration) -> Result<Positions, LogError> {
        self.log.end_offsets(timeout)
    }
}

struct FaultyPublisher {
    publisher: Box<dyn Publisher>,
    faults: Faults,
}

impl Publisher for FaultyPublisher {
    fn position(&self) -> Option<u64> {
        self.publisher.position()
    }

    fn note(&self) -> &str {
        self.publisher.note()
    }

    fn set_note(&mut self, note: String) {
        self.publisher.set_note(note);
    }

    fn may_lose_records(&self) -> bool {
        self.faults.may_lose_records.swap(false, Ordering::SeqCst)
    }

    fn append(&mut self, records: &[Record], position: u64) -> Result<(), LogError> {
        self.faults.check()?;
        self.faults.publishes_left.fetch_sub(i64::from(!records.is_empty()), Ordering::SeqCst);
        self.publisher.append(records, position)
    }

    fn commit_due(&self) -> Option<Duration> {
        self.publisher.commit_due()
    }

    fn commit(&mut self) -> Result<(), LogError> {
        self.publisher.commit()
    }

    fn check(&mut self) -> Result<(), LogError> {
        self.faults.check()?;
        self.publisher.check()
    }
}

/// Waits until the service takes no writes, and returns why.
#[track_caller]
pub(crate) fn superseded(service: &Http) -> String {
    wait_until("it is superseded", || {
        let ready = service.get("/readyz");
        let reasons = ready.body["reasons"].as_array()?.iter().filter_map(Value::as_str);
        let reason = reasons.filter_map(|reason| reason.strip_prefix("superseded: ")).next()?;
        assert_eq!(ready.status, 503);
        Some(reason.to_owned())
    })
}

/// `/account?id=`
pub(crate) fn account(id: &str) -> String {
    format!("/account?id={id}")
}

/// The ids of a page's accounts.
pub(crate) fn ids(page: &Value) -> Vec<String> {
    let accounts = page["accounts"].as_array().expect("a list of accounts");
    accounts.iter().map(|account| account["id"].as_str().expect("an id").to_owned()).collect()
}

/// The one text that an account with these values is written as: the fields of docs/api.md, in its order, and no other.
pub(crate) fn written(body: &Value) -> String {
    let fields =
        ["id", "account_number", "beholder_name", "country_code", "status", "version", "created_at", "updated_at"];
    let fields: Vec<_> = fields.iter().map(|name| format!("\"{name}\":{}", body[name])).collect();
    format!("{{{}}}", fields.join(","))
}

/// What is the same of an account whatever is changed about it.
#[track_caller]
pub(crate) fn assert_same_account(one: &Value, other: &Value) {
    for field in ["id", "account_number", "created_at"] {
        assert_eq!(one[field], other[field], "{field} changed");
    }
}
