//! The service under test, and helpers for its tests.

use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use account_events::{AccountEvent, AccountStatus, Envelope, EventType, Version};
use card_service::{Config, EventStreamSettings};
use clock::Clock;
use event_log::{EventLog, Positions, Publisher, Record};
use http_server::HttpConfig;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tempfile::TempDir;
use test_harness::{
    Answer, Http, InProcess, callers, database_url, forget_event_log, open_event_log, wait_until, with_postgres,
};
use uuid::Uuid;

use crate::switched_log::{SwitchedLog, Switches};

/// 2025-11-25T10:30:00Z, where a fixed clock starts.
pub(crate) const START_MICROS: i64 = 1_764_066_600_000_000;

/// An id that is not in use.
pub(crate) const UNKNOWN_ID: &str = "550e8400-e29b-41d4-a716-446655440000";

/// The settings that tests change.
pub(crate) struct Settings {
    pub(crate) clock: Clock,
    pub(crate) view_max_age: Option<Duration>,
    pub(crate) cors: Option<&'static str>,
    /// The callers that are known; anyone may call if there are none.
    pub(crate) callers: &'static [&'static str],
    pub(crate) backlog_published: Option<Arc<AtomicBool>>,
    pub(crate) rebuild_view: bool,
    pub(crate) events: EventStreamSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            clock: Clock::system(),
            view_max_age: None,
            cors: None,
            callers: &[],
            backlog_published: None,
            rebuild_view: false,
            events: EventStreamSettings::default(),
        }
    }
}

/// A card service with a database and an event log of its own. It derefs to its HTTP client.
pub(crate) struct TestService {
    // The service ends first, then the log it reads, then the folder of both.
    running: InProcess,
    accounts: Accounts,
    folder: TempDir,
    settings: Settings,
    pub(crate) switches: Switches,
}

/// The account service, as the card service sees it: a publisher of events.
pub(crate) struct Accounts {
    publisher: Mutex<Box<dyn Publisher>>,
    log: Arc<dyn EventLog>,
    /// The name of the publisher and of the card closers' group, which no other test uses.
    name: String,
    /// The number of records in the log, which is too small to be compacted.
    records: AtomicU64,
}

/// Partition, offset, reason, key, value and headers of a record in quarantine.
pub(crate) type QuarantineRow = (i64, i64, String, Option<Vec<u8>>, Option<Vec<u8>>, String);

impl TestService {
    /// Starts it, and waits until it is ready.
    pub(crate) fn start() -> Self {
        Self::start_with(Settings::default())
    }

    /// Starts it with `settings`, and waits until it is ready.
    pub(crate) fn start_with(settings: Settings) -> Self {
        let service = Self::start_behind(settings, |_, _| ());
        service.wait_until_ready();
        service
    }

    /// Calls `prepare` with the log, starts the service on it, and does not wait until it is ready.
    pub(crate) fn start_behind(settings: Settings, prepare: impl FnOnce(&Accounts, &Switches)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let accounts = Accounts::open(folder.path(), 0);
        let switches = Switches::default();
        prepare(&accounts, &switches);
        let running = run(folder.path(), &accounts, &settings, &switches);
        TestService { running, accounts, folder, settings, switches }
    }

    /// Ends the service and closes its log; then starts both on the same files, and waits until it is ready.
    pub(crate) fn restart(self) -> Self {
        self.restart_after(|_| ())
    }

    /// As [`restart`](Self::restart), without the checkpoint of the view. Does not wait until it is ready.
    pub(crate) fn restart_held(self) -> Self {
        let checkpoint = self.checkpoint_name();
        let TestService { mut running, accounts, folder, settings, switches } = self;
        running.stop().expect("a clean end");
        std::fs::remove_file(folder.path().join(checkpoint)).expect("a checkpoint");
        let running = run(folder.path(), &accounts, &settings, &switches);
        TestService { running, accounts, folder, settings, switches }
    }

    /// As [`restart`](Self::restart), but replaces the log by a new one with `records`.
    pub(crate) fn restart_on_another_log(self, records: &[Record]) -> Self {
        self.accounts.records.store(0, Ordering::SeqCst);
        self.restart_after(|folder| {
            forget_event_log(folder);
            Accounts::open(folder, 0).publish(records);
        })
    }

    /// As [`restart`](Self::restart), and calls `change` with the folder while the service is stopped.
    pub(crate) fn restart_after(self, change: impl FnOnce(&Path)) -> Self {
        let TestService { mut running, accounts, folder, settings, switches } = self;
        running.stop().expect("a clean end");
        drop(running);
        let records = accounts.record_count();
        drop(accounts);
        change(folder.path());
        let accounts = Accounts::open(folder.path(), records);
        let running = run(folder.path(), &accounts, &settings, &switches);
        let service = TestService { running, accounts, folder, settings, switches };
        service.wait_until_ready();
        service
    }

    /// As [`restart`](Self::restart), with `REBUILD_VIEW=true`.
    pub(crate) fn restart_rebuilding(mut self) -> Self {
        self.settings.rebuild_view = true;
        self.restart()
    }

    /// Where the log ends.
    pub(crate) fn ends(&self) -> Positions {
        self.accounts.ends()
    }

    /// Stops the service and reads its quarantine.
    pub(crate) fn stop_and_read_quarantine(&mut self) -> Vec<QuarantineRow> {
        self.running.stop().expect("a clean end");
        let url = database_url(self.folder.path(), "card");
        let sql = "SELECT partition, record_offset, reason, key, value, headers FROM";
        match url.strip_prefix("sqlite:") {
            Some(path) => {
                let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a database");
                let sql = format!("{sql} quarantine ORDER BY 1, 2");
                let mut statement = database.prepare(&sql).expect("the quarantine");
                let rows = statement.query_map([], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
                });
                rows.expect("rows").collect::<rusqlite::Result<_>>().expect("rows")
            }
            None => with_postgres(&url, async |client| {
                let rows = client.query(&format!("{sql} card.quarantine ORDER BY 1, 2"), &[]).await?;
                let row = |row: &tokio_postgres::Row| {
                    (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4), row.get(5))
                };
                Ok(rows.iter().map(row).collect())
            }),
        }
    }

    /// The name of the checkpoint of its view, in its folder.
    pub(crate) fn checkpoint_name(&self) -> &'static str {
        if self.is_on_postgres() { "card-account-view.checkpoint" } else { "card.db.view" }
    }

    /// The folder of its files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Whether its database is on a server, which instances share.
    pub(crate) fn is_on_postgres(&self) -> bool {
        self.postgres_url().is_some()
    }

    /// Its database, if that is on a server.
    pub(crate) fn postgres_url(&self) -> Option<String> {
        Some(database_url(self.folder.path(), "card")).filter(|url| url.starts_with("postgres"))
    }

    /// Starts a second service on the same files, which is refused.
    pub(crate) fn start_another(&self) -> InProcess {
        run(self.folder.path(), &self.accounts, &self.settings, &self.switches)
    }

    /// Another instance on the same log: with a file of its own, or on the same server. The folder is dropped after it.
    pub(crate) fn start_beside(&self) -> (TempDir, InProcess) {
        let folder = tempfile::tempdir().expect("a folder");
        if self.is_on_postgres() {
            let noted = "card.url";
            std::fs::copy(self.folder.path().join(noted), folder.path().join(noted)).expect("a noted URL");
        }
        let running = run(folder.path(), &self.accounts, &self.settings, &self.switches);
        (folder, running)
    }

    /// Stops the service, reopens all accounts and cards in its database, as in an older copy, and starts it again.
    pub(crate) fn restart_with_an_older_database(mut self) -> Self {
        self.running.stop().expect("a clean end");
        let url = database_url(self.folder.path(), "card");
        match url.strip_prefix("sqlite:") {
            Some(path) => {
                let sql = "UPDATE cards SET deleted = 0; DELETE FROM card_deletions;
                           UPDATE cards_by_account SET closed = 0 WHERE sequence = 0";
                Connection::open(path).and_then(|database| database.execute_batch(sql)).expect("a database");
            }
            None => with_postgres(&url, async |client| {
                let sql = "UPDATE card.cards SET deleted = false; DELETE FROM card.card_deletions;
                           UPDATE card.card_accounts SET closed = false";
                client.batch_execute(sql).await
            }),
        }
        self.restart()
    }

    pub(crate) fn wait_until_ready(&self) {
        wait_until("the service is ready", || (self.get("/readyz").status == 200).then_some(()));
    }

    /// The account view in `/readyz`.
    pub(crate) fn view(&self) -> Value {
        self.get("/readyz").body["view"].take()
    }

    /// Publishes `records`, and waits until the view has them.
    pub(crate) fn tell(&self, records: &[Record]) {
        self.accounts.publish(records);
        let all = self.accounts.record_count();
        wait_until("the view has what was published", || (self.view()["records"] == all).then_some(()));
    }

    /// Publishes `records` and does not wait for the view.
    pub(crate) fn publish(&self, records: &[Record]) {
        self.accounts.publish(records);
    }

    /// The id of a new account that may have cards.
    pub(crate) fn account(&self) -> String {
        let id = new_id();
        self.tell(&[created(&id)]);
        id
    }

    /// `POST /card`
    pub(crate) fn post_card(&self, country: &str, account_id: &str) -> Answer {
        self.post("/card", &json!({"country": country, "account_id": account_id}))
    }

    /// `POST /card`, answered 201.
    #[track_caller]
    pub(crate) fn card(&self, country: &str, account_id: &str) -> Answer {
        let answer = self.post_card(country, account_id);
        assert_eq!(answer.status, 201, "{}", answer.raw);
        answer
    }

    /// `GET path`, answered 200, until all cards of the list are deleted.
    pub(crate) fn wait_until_all_deleted(&self, path: &str) {
        wait_until("the cards are deleted", || {
            let page = self.get(path).expect(200);
            let cards = page["cards"].as_array().expect("a list of cards");
            cards.iter().all(|card| card["deleted"] == true).then_some(())
        });
    }
}

impl Deref for TestService {
    type Target = Http;

    fn deref(&self) -> &Http {
        self.running.http()
    }
}

impl Accounts {
    fn open(folder: &Path, records: u64) -> Self {
        let log = open_event_log(folder);
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let publisher = log.publisher(&name).expect("a log that is there");
        Accounts { publisher: Mutex::new(publisher), log, name, records: AtomicU64::new(records) }
    }

    pub(crate) fn publish(&self, records: &[Record]) {
        let mut publisher = self.publisher.lock().expect("no panic while it is held");
        let position = publisher.position().unwrap_or(0) + records.len() as u64;
        publisher.publish(records, position).expect("a log that is there");
        self.records.fetch_add(records.len() as u64, Ordering::SeqCst);
    }

    pub(crate) fn log(&self) -> &Arc<dyn EventLog> {
        &self.log
    }

    /// Where the log ends.
    pub(crate) fn ends(&self) -> Positions {
        self.log.end_offsets(Duration::from_secs(20)).expect("a log that is there")
    }

    fn record_count(&self) -> u64 {
        self.records.load(Ordering::SeqCst)
    }
}

fn run(folder: &Path, accounts: &Accounts, settings: &Settings, switches: &Switches) -> InProcess {
    let config = Config {
        database: database_url(folder, "card").parse().expect("a database URL"),
        data_dir: folder.to_owned(),
        group: accounts.name.clone(),
        rebuild_view: settings.rebuild_view,
        events: settings.events,
        backlog_published: settings.backlog_published.clone(),
        view_max_age: settings.view_max_age,
        http: HttpConfig {
            authenticator: (!settings.callers.is_empty()).then(|| callers(settings.callers)),
            cors: settings.cors.map(|origin| origin.parse().expect("an origin")),
            ..HttpConfig::default()
        },
        clock: settings.clock.clone(),
    };
    let log = SwitchedLog { log: Arc::clone(&accounts.log), switches: switches.clone() };
    let running = InProcess::start(|listener, shutdown| card_service::run(config, listener, Arc::new(log), shutdown));
    match settings.callers.first() {
        Some(first) => running.with_caller(first),
        None => running,
    }
}

/// The id of a new account.
pub(crate) fn new_id() -> String {
    Uuid::new_v4().to_string()
}

/// The event of an account's creation.
pub(crate) fn created(id: &str) -> Record {
    event(id, EventType::Created, AccountStatus::Active, 1)
}

/// The event of a change of status.
pub(crate) fn changed(id: &str, status: AccountStatus, version: Version) -> Record {
    event(id, EventType::StatusChanged, status, version)
}

fn event(id: &str, event_type: EventType, status: AccountStatus, version: Version) -> Record {
    let account_id = id.parse().expect("an account id");
    let event = AccountEvent { event_type, account_id, status, version: Some(version) };
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    Envelope { event, version, time: "2025-11-25T10:30:00Z", traceparent }.encode()
}

/// `/card?id=`
pub(crate) fn card(id: &str) -> String {
    format!("/card?id={id}")
}

/// `/cards/by-account?account_id=`
pub(crate) fn by_account(id: &str) -> String {
    format!("/cards/by-account?account_id={id}")
}

/// The ids of a page's cards.
pub(crate) fn ids(page: &Value) -> Vec<String> {
    let cards = page["cards"].as_array().expect("a list of cards");
    cards.iter().map(|card| card["id"].as_str().expect("an id").to_owned()).collect()
}

/// The JSON text of a card with these values: the fields of docs/api.md in its order, and no others.
pub(crate) fn written(body: &Value) -> String {
    let fields = ["id", "card_number", "country", "account_id", "deleted", "creation_timestamp"];
    let fields: Vec<_> = fields.iter().map(|name| format!("\"{name}\":{}", body[name])).collect();
    format!("{{{}}}", fields.join(","))
}
