//! Where the services of a test run: the databases under them and the event log between them.
//!
//! The environment decides, so that one command runs the same tests on every pair:
//!
//! | | neither | `TANDEM_TEST_POSTGRES_URL` | `TANDEM_TEST_KAFKA_BROKERS` | both |
//! |---|---|---|---|---|
//! | databases | SQLite | PostgreSQL | SQLite | PostgreSQL |
//! | [`Place::embedded`] | embedded | embedded | embedded | embedded |
//! | [`Place::kafka`] | mock cluster | mock cluster | Apache Kafka | Apache Kafka |
//! | [`Place::durable`] | embedded | embedded | Apache Kafka | Apache Kafka |

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};

use clock::Clock;
use event_log::{EmbeddedLog, EmbeddedSettings, EventLog, Record};
use rusqlite::Connection;
use tempfile::TempDir;
use test_harness::{DEADLINE, Http, InProcess, POSTGRES_URL, Process, binary, database_url, wait_until};

use crate::events::{Seen, check_published_once, read_all};
use crate::kafka::Kafka;
use crate::tables::Databases;

/// The folder of a process's files, by default.
const DATA: &str = "data";

pub(crate) struct Place {
    folder: TempDir,
    events: Events,
}

enum Events {
    /// Open as long as somebody has it: only one process can.
    Embedded(Mutex<Weak<EmbeddedLog>>),
    Kafka(Kafka),
}

/// Both services as processes, which may be one and the same.
pub(crate) struct Services {
    processes: Vec<Process>,
    pub(crate) accounts: Http,
    pub(crate) cards: Http,
}

impl Services {
    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.processes.iter_mut().for_each(Process::kill);
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop(mut self) {
        for process in &mut self.processes {
            assert!(process.terminate().success(), "{:#?}", process.lines());
        }
    }
}

impl Place {
    /// With the embedded event log.
    pub(crate) fn embedded() -> Self {
        Place::with(Events::Embedded(Mutex::default()))
    }

    /// With Kafka: Apache's, or else the mock cluster.
    pub(crate) fn kafka() -> Self {
        Place::with(Events::Kafka(Kafka::real().unwrap_or_else(Kafka::mock)))
    }

    /// With Apache Kafka, if there is one.
    pub(crate) fn apache_kafka() -> Option<Self> {
        Kafka::real().map(|kafka| Place::with(Events::Kafka(kafka)))
    }

    /// With Apache Kafka, or else the embedded event log: both keep what the mock cluster forgets.
    pub(crate) fn durable() -> Self {
        Place::apache_kafka().unwrap_or_else(Place::embedded)
    }

    fn with(events: Events) -> Self {
        let place = Place { folder: TempDir::new().expect("a folder"), events };
        std::fs::create_dir(place.data()).expect("a folder in it");
        place
    }

    /// The folder that processes run in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join(DATA)
    }

    /// Its Kafka; panics if it has none.
    pub(crate) fn its_kafka(&self) -> &Kafka {
        let Events::Kafka(kafka) = &self.events else { panic!("the embedded event log is no Kafka") };
        kafka
    }

    /// Has the log take records without a key: a topic of Kafka's must not be compacted then. Nothing may be in it yet.
    pub(crate) fn take_keyless_records(&self) {
        if let Events::Kafka(kafka) = &self.events {
            kafka.make_topic_that_deletes();
        }
    }

    /// The event log, for a service in this process, or for the test to look at.
    pub(crate) fn log(&self) -> Arc<dyn EventLog> {
        match &self.events {
            Events::Embedded(open) => {
                let mut open = open.lock().expect("no panic while it is locked");
                let log = open.upgrade().unwrap_or_else(|| {
                    let settings = EmbeddedSettings::at(self.data().join("event-log.db"));
                    Arc::new(EmbeddedLog::open(settings).expect("an intact log that no process has"))
                });
                *open = Arc::downgrade(&log);
                log
            }
            Events::Kafka(kafka) => kafka.log(),
        }
    }

    /// Publishes `records`.
    pub(crate) fn publish(&self, records: &[Record]) {
        match &self.events {
            Events::Embedded(_) => {
                let mut publisher = self.log().publisher("test").expect("it takes publishers");
                publisher.publish(records, 1).expect("it takes records");
            }
            Events::Kafka(kafka) => kafka.publish(records),
        }
    }

    /// Everything in the event log, each partition's in order, and, where the log can see to that, none of it twice. With
    /// the embedded event log no process may run.
    pub(crate) fn events(&self) -> Vec<Seen> {
        let events = match &self.events {
            Events::Kafka(kafka) if !kafka.is_mock() => kafka.read_committed(),
            _ => read_all(self.log().as_ref()),
        };
        if !matches!(&self.events, Events::Kafka(kafka) if kafka.is_mock()) {
            check_published_once(&events);
        }
        events
    }

    /// Waits until the log has `count` events and the card closers' group has committed them all.
    pub(crate) fn wait_until_group_has_committed(&self, count: u64) {
        match &self.events {
            Events::Embedded(_) => wait_until("the group has committed all events", || {
                // Of a process that runs, so through the file. Offsets have no gaps.
                let file = Connection::open(self.data().join("event-log.db")).expect("a database");
                file.busy_timeout(DEADLINE).expect("a timeout");
                let sql = "SELECT ifnull(sum(next_offset), 0) FROM group_positions WHERE group_name = ?";
                let committed: i64 = file.query_row(sql, [self.group()], |row| row.get(0)).expect("a number");
                (committed == count as i64).then_some(())
            }),
            Events::Kafka(kafka) => {
                let ends = wait_until("all is published", || {
                    let events = self.events();
                    let ends: BTreeMap<_, _> = events.iter().map(|seen| (seen.partition, seen.offset + 1)).collect();
                    (events.len() as u64 == count).then_some(ends)
                });
                wait_until("the group has committed all events", || {
                    let committed = kafka.committed();
                    ends.iter().all(|(partition, end)| committed[partition] >= *end).then_some(())
                });
            }
        }
    }

    fn group(&self) -> &str {
        match &self.events {
            Events::Embedded(_) => card_service::DEFAULT_GROUP,
            Events::Kafka(kafka) => &kafka.group,
        }
    }

    /// Where `service` keeps its rows. On PostgreSQL all share one database; on SQLite each has a file in `folder`.
    fn database_url(&self, folder: &Path, service: &str) -> String {
        if std::env::var_os(POSTGRES_URL).is_some() {
            return database_url(self.folder.path(), "tandem");
        }
        database_url(folder, service.strip_suffix("-service").expect("one of the two"))
    }

    /// The databases of the processes.
    pub(crate) fn databases(&self) -> Databases {
        let url = |service| self.database_url(&self.data(), service);
        Databases::at(&url(account_service::NAME), &url(card_service::NAME))
    }

    /// Starts the process that has `service` in it: the service's own, or the all-in-one with the embedded event log.
    pub(crate) fn start(&self, service: &'static str) -> Process {
        self.start_with(service, &[])
    }

    /// As [`Place::start`], with settings that come before those of the place.
    pub(crate) fn start_with(&self, service: &'static str, settings: &[(&'static str, &str)]) -> Process {
        match self.events {
            Events::Embedded(_) => self.start_binary("tandem", settings),
            Events::Kafka(_) => self.start_binary(service, settings),
        }
    }

    /// Starts the all-in-one.
    pub(crate) fn start_all_in_one(&self) -> Process {
        self.start_all_in_one_with(&[])
    }

    /// As [`Place::start_all_in_one`], with settings that come before those of the place.
    pub(crate) fn start_all_in_one_with(&self, settings: &[(&'static str, &str)]) -> Process {
        self.start_binary("tandem", settings)
    }

    /// Starts both services, and waits until they are ready.
    pub(crate) fn start_services(&self) -> Services {
        let mut processes = match self.events {
            Events::Embedded(_) => vec![self.start_all_in_one()],
            Events::Kafka(_) => vec![self.start(account_service::NAME), self.start(card_service::NAME)],
        };
        let accounts = processes[0].ready_service(account_service::NAME);
        let cards = processes.last_mut().expect("one or two").ready_service(card_service::NAME);
        Services { processes, accounts, cards }
    }

    fn start_binary(&self, name: &str, first: &[(&'static str, &str)]) -> Process {
        let mut settings = BTreeMap::new();
        if let Events::Kafka(kafka) = &self.events {
            settings.extend(kafka.settings());
        }
        // Without a word the files are in the folder that the process runs in.
        if std::env::var_os(POSTGRES_URL).is_some() {
            let url = self.database_url(&self.data(), account_service::NAME);
            let names = ["DATABASE_URL", "ACCOUNT_DATABASE_URL", "CARD_DATABASE_URL"];
            settings.extend(names.map(|name| (name, url.clone())));
        }
        settings.extend(first.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Process::start(&binary(name), self.folder.path(), &settings)
    }

    /// The settings of the event log for a command; none for the embedded one, which the command reads through a service.
    pub(crate) fn log_settings(&self) -> Vec<(&'static str, String)> {
        match &self.events {
            Events::Embedded(_) => Vec::new(),
            Events::Kafka(kafka) => kafka.settings(),
        }
    }

    /// An account service in this process, ready.
    pub(crate) fn account_service(&self) -> InProcess {
        self.account_service_with(self.log())
    }

    /// An account service in this process with that log, ready.
    pub(crate) fn account_service_with(&self, log: Arc<dyn EventLog>) -> InProcess {
        let database = self.database_url(&self.data(), account_service::NAME).parse().expect("a URL");
        let (http, clock) = (Default::default(), Clock::system());
        let config = account_service::Config { database, http, clock, backlog_published: Arc::default() };
        ready(InProcess::start(|listener, shutdown| account_service::run(config, listener, log, shutdown)))
    }

    /// A card service in this process with that log, ready. Those of other names have other files, if they have files.
    pub(crate) fn card_service(&self, name: &str, log: Arc<dyn EventLog>) -> InProcess {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let config = card_service::Config {
            database: self.database_url(&folder, card_service::NAME).parse().expect("a URL"),
            data_dir: folder,
            group: self.group().to_owned(),
            events: card_service::EventStreamSettings::default(),
            rebuild_view: false,
            backlog_published: None,
            view_max_age: None,
            http: Default::default(),
            clock: Clock::system(),
        };
        ready(InProcess::start(|listener, shutdown| card_service::run(config, listener, log, shutdown)))
    }
}

fn ready(service: InProcess) -> InProcess {
    wait_until("the service is ready", || (service.http().get("/readyz").status == 200).then_some(()));
    service
}
