//! How fast an outbox is drained that filled while the log was away, beside a bare producer on the same log.
//!
//! A service makes its tables, and ends. A million events go to its outbox by SQL; it is started, and the time counts from then
//! until all of them are in the log: with the start, the connections to the log, and the writer that removes what is
//! published. The bare producer has the same records in memory. The two take turns, each on a log of its own that is empty.

mod outbox;
mod raw;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use database::DatabaseUrl;
use event_log::{EmbeddedLog, EmbeddedSettings, EventLog, Record};
use process::Clock;
use test_harness::{InProcess, postgres_database};

use crate::accounts::MadeAccount;
use crate::figure::{Figure, Unit};
use crate::servers::Servers;
use crate::turns::Turns;

/// Events in the outbox.
const EVENTS: u64 = 1_000_000;

/// Turns of each.
const ROUNDS: usize = 5;

/// How long draining may take.
const DRAINED: Duration = Duration::from_secs(120);

/// Events a second of a turn of each.
#[derive(Default)]
struct Round {
    embedded: f64,
    raw_embedded: f64,
    sqlite_kafka: f64,
    postgres_kafka: f64,
    raw_kafka: f64,
}

pub(crate) fn measure(servers: &Servers, quick: bool) -> anyhow::Result<Vec<Figure>> {
    let (events, turns) = if quick { (EVENTS / 10, 1) } else { (EVENTS, ROUNDS) };
    let records: Vec<_> = (1..=events).map(|number| MadeAccount(number).record()).collect();
    // A broker that has just been started compiles its code first.
    raw::kafka(servers, "raw-0", &records[..records.len() / 10])?;
    let mut rounds = Vec::new();
    for number in 1..=turns {
        println!("draining {events} events: round {number} of {turns}");
        rounds.push(round(servers, number, &records)?);
    }
    Ok(figures(&rounds, events))
}

fn round(servers: &Servers, number: usize, records: &[Record]) -> anyhow::Result<Round> {
    let events = records.len() as u64;
    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name);
    let topic =
        |of: &str| -> anyhow::Result<Arc<dyn EventLog>> { Ok(Arc::new(servers.topic(&format!("{of}-{number}"))?)) };
    let embedded = EmbeddedLog::open(EmbeddedSettings::at(file("event-log.db")))?;
    let postgres = DatabaseUrl::Postgres(postgres_database(&servers.postgres));
    Ok(Round {
        raw_embedded: raw::embedded(records)?,
        embedded: drained(Arc::new(embedded), &DatabaseUrl::Sqlite(file("a.db")), events)?,
        raw_kafka: raw::kafka(servers, &format!("raw-{number}"), records)?,
        sqlite_kafka: drained(topic("sqlite")?, &DatabaseUrl::Sqlite(file("b.db")), events)?,
        postgres_kafka: drained(topic("postgres")?, &postgres, events)?,
    })
}

/// Events a second, from the start of the service until the log has the last one.
fn drained(log: Arc<dyn EventLog>, database: &DatabaseUrl, events: u64) -> anyhow::Result<f64> {
    start(&log, database).stop()?;
    outbox::fill(database, events)?;
    let started = Instant::now();
    let mut service = start(&log, database);
    loop {
        let relay = &service.http().get("/readyz").body["relay"];
        if relay["published"] == events {
            break;
        }
        ensure!(started.elapsed() < DRAINED, "{events} events were not drained in {DRAINED:?}: {relay}");
        thread::park_timeout(Duration::from_millis(10));
    }
    let seconds = started.elapsed().as_secs_f64();
    service.stop()?;
    Ok(events as f64 / seconds)
}

fn start(log: &Arc<dyn EventLog>, database: &DatabaseUrl) -> InProcess {
    let config = account_service::Config {
        database: database.clone(),
        cors: None,
        clock: Clock::system(),
        backlog_published: Default::default(),
    };
    let log = Arc::clone(log);
    InProcess::start(|listener, shutdown| account_service::run(config, listener, log, shutdown))
}

fn figures(rounds: &[Round], events: u64) -> Vec<Figure> {
    let figure = |what: &str, peer: &str, ours: fn(&Round) -> f64, raw: fn(&Round) -> f64| {
        let what = format!("draining {events} events, {what}");
        Turns(rounds).compared(what, Unit::PerSecond, ours, peer, raw).at_least(0.5)
    };
    let bare = "bare librdkafka, idempotent";
    vec![
        figure("SQLite, embedded log", "its bare publisher", |round| round.embedded, |round| round.raw_embedded),
        figure("SQLite, Kafka", bare, |round| round.sqlite_kafka, |round| round.raw_kafka),
        figure("PostgreSQL, Kafka", bare, |round| round.postgres_kafka, |round| round.raw_kafka),
    ]
}
