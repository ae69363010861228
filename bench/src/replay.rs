//! Replay: how fast the card service takes a whole log into its view, from its start until `/readyz` says that it is ready.
//!
//! The log holds a record of each of its accounts, as the account service makes them. The card closers' group has
//! read it before, as at any start but a group's first, so it is the feed that is measured. On Kafka it takes turns with a loop
//! of librdkafka that reads the same topic and throws everything away, tuned as the feed's reader is. Each start is followed
//! by another one after a graceful stop. Each is that of a process of its own: memory that one start has given back would be there
//! for the next one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use card_service::{Config, DEFAULT_GROUP};
use database::DatabaseUrl;
use event_log::{EmbeddedLog, EmbeddedSettings, EventLog, KafkaLog, KafkaSettings, Record};
use process::Clock;
use rdkafka::producer::{BaseProducer, Producer};
use serde_json::{Value, json};
use test_harness::{InProcess, make_topic_that_deletes};

use crate::accounts::MadeAccount;
use crate::figure::{Figure, Unit};
use crate::servers::Servers;
use crate::turns::Turns;
use crate::{peers, progress};

/// Records in each log, a tenth of it for a quick look.
const RECORDS: u64 = 10_000_000;

/// Turns, of which the medians are given; one for a quick look.
const ROUNDS: usize = 5;

/// Records that are made, and published, at once.
const BATCH: usize = 50_000;

/// How long any one read of the whole log may take.
const DEADLINE: Duration = Duration::from_secs(600);

/// How often a service that starts is asked whether it is ready.
const READY_PAUSE: Duration = Duration::from_millis(1);

/// What tells a log in Kafka from a file.
const KAFKA: &str = "kafka:";

/// How long the brokers may take for anything.
const KAFKA_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn measure(quick: bool) -> anyhow::Result<Vec<Figure>> {
    let (records, rounds) = if quick { (RECORDS / 10, 1) } else { (RECORDS, ROUNDS) };
    // Each log is gone before the other one is filled.
    let mut figures = embedded(records, rounds)?;
    figures.extend(kafka(records, rounds)?);
    Ok(figures)
}

/// How long a start on the whole log takes, and the next one, in seconds.
struct Starts {
    full: f64,
    again: f64,
}

fn embedded(records: u64, rounds: usize) -> anyhow::Result<Vec<Figure>> {
    println!("filling an embedded log with {records} records");
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("event-log.db");
    let log = EmbeddedLog::open(uncompacted(&path))?;
    let mut publisher = log.publisher("bench")?;
    each_batch(records, |batch, published| Ok(publisher.publish(batch, published)?))?;
    read_as_group(&log, records)?;
    drop((publisher, log));

    let mut starts = Vec::new();
    for round in 1..=rounds {
        println!("replaying {records} records of the embedded log: turn {round} of {rounds}");
        starts.push(start_twice(records, &path.to_string_lossy())?);
    }
    let what = format!("replay of {records} records until ready, embedded log");
    let replay = Turns(&starts).figure(what, Unit::PerSecond, |starts| records as f64 / starts.full);
    Ok(vec![replay.at_least(1_000_000.0), restart(&starts)])
}

fn kafka(records: u64, rounds: usize) -> anyhow::Result<Vec<Figure>> {
    let servers = Servers::up()?;
    println!("filling a topic with {records} records");
    let topic = servers.topic_name("replay");
    // It is not compacted either: that would take one of two processors while the first turns last.
    make_topic_that_deletes(&servers.brokers, &topic);
    let log = servers.topic("replay")?;
    fill_topic(&servers.brokers, &topic, records)?;
    read_as_group(&log, records)?;

    let mut turns = Vec::new();
    for round in 1..=rounds {
        println!(
            "replaying {records} records of Kafka, and reading them with bare librdkafka: turn {round} of {rounds}"
        );
        let ours = start_twice(records, &format!("{KAFKA}{}/{topic}", servers.brokers))?;
        turns.push((ours, read_and_discard(&servers.brokers, &topic, records)?));
    }
    let replay = Turns(&turns)
        .compared(
            format!("replay of {records} records until ready, Kafka"),
            Unit::PerSecond,
            |(ours, _)| records as f64 / ours.full,
            "bare librdkafka, poll and discard",
            |(_, bare)| records as f64 / bare,
        )
        .at_least(0.9);
    let starts: Vec<_> = turns.into_iter().map(|(ours, _)| ours).collect();
    Ok(vec![replay, restart(&starts)])
}

/// What the start after a graceful stop takes of a full replay.
fn restart(starts: &[Starts]) -> Figure {
    Turns(starts)
        .compared(
            "  start after a stop, until ready",
            Unit::Seconds,
            |starts| starts.again,
            "the full replay",
            |starts| starts.full,
        )
        .at_most(0.05)
}

/// Makes `records` records of as many accounts, and hands them over in batches, each with how many there are by then.
fn each_batch(records: u64, mut take: impl FnMut(&[Record], u64) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    for number in 0..records {
        batch.push(MadeAccount(number).first_record());
        if batch.len() == BATCH || number + 1 == records {
            take(&batch, number + 1)?;
            progress("records", number + 1, records);
            batch.clear();
        }
    }
    Ok(())
}

/// As many and as large batches as go out at once; the services' own producer does not compress either.
fn fill_topic(brokers: &str, topic: &str, records: u64) -> anyhow::Result<()> {
    let mut config = peers::idempotent(brokers);
    config.set("linger.ms", "20").set("batch.size", "1000000").set("queue.buffering.max.messages", "1000000");
    let producer: BaseProducer = config.create()?;
    each_batch(records, |batch, _| {
        batch.iter().try_for_each(|record| peers::send(&producer, topic, record))?;
        Ok(producer.flush(KAFKA_TIMEOUT)?)
    })
}

/// Brings the card closers' group behind all that is in the log.
fn read_as_group(log: &dyn EventLog, records: u64) -> anyhow::Result<()> {
    let mut reader = log.group_reader(DEFAULT_GROUP)?;
    let (until, mut read) = (Instant::now() + DEADLINE, 0);
    while read < records {
        ensure!(Instant::now() < until, "{read} of {records} records were read in time");
        read += reader.poll(Duration::from_millis(250), &mut |_| ())? as u64;
    }
    Ok(reader.commit()?)
}

/// Starts the card service on a log that it has not read, and once more when it was stopped.
fn start_twice(records: u64, log: &str) -> anyhow::Result<Starts> {
    let folder = tempfile::tempdir()?;
    let start = || {
        let output = Command::new(std::env::current_exe()?).arg("--start").arg(folder.path()).arg(log).output()?;
        ensure!(
            output.status.success(),
            "the card service was not started: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let started: Value = serde_json::from_slice(&output.stdout)?;
        let accounts = &started["accounts"];
        ensure!(*accounts == records, "the view holds {accounts} of {records} accounts");
        started["seconds"].as_f64().context("it does not say how long it took")
    };
    Ok(Starts { full: start()?, again: start()? })
}

/// Starts the card service with its files in `folder`, prints how long it takes until it is ready and how many accounts it has then,
/// and stops it. The log is an embedded one's file, or [`KAFKA`], brokers, a slash and a topic.
pub(crate) fn start(folder: &Path, log: &str) -> anyhow::Result<()> {
    let config = Config {
        database: DatabaseUrl::Sqlite(folder.join("card.db")),
        data_dir: folder.to_owned(),
        group: DEFAULT_GROUP.to_owned(),
        backlog_published: None,
        view_max_age: None,
        cors: None,
        clock: Clock::system(),
    };
    let started = Instant::now();
    let log: Arc<dyn EventLog> = match log.strip_prefix(KAFKA).and_then(|topic| topic.split_once('/')) {
        Some((brokers, topic)) => Arc::new(KafkaLog::open(KafkaSettings {
            brokers: brokers.to_owned(),
            topic: topic.to_owned(),
            extra: Vec::new(),
        })?),
        None => Arc::new(EmbeddedLog::open(uncompacted(log))?),
    };
    let mut service = InProcess::start(|listener, shutdown| card_service::run(config, listener, log, shutdown));
    while service.http().get("/readyz").status != 200 {
        ensure!(started.elapsed() < DEADLINE, "the card service was not ready in time");
        std::thread::park_timeout(READY_PAUSE);
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{}", json!({"seconds": seconds, "accounts": service.http().get("/readyz").body["view"]["accounts"]}));
    service.stop()
}

/// No key is there twice: there is nothing to compact, and looking for it would only disturb.
fn uncompacted(path: impl Into<PathBuf>) -> EmbeddedSettings {
    EmbeddedSettings { compaction_min_records: u64::MAX, ..EmbeddedSettings::at(path) }
}

/// How long bare librdkafka takes to hand over the whole topic, in seconds.
fn read_and_discard(brokers: &str, topic: &str, records: u64) -> anyhow::Result<f64> {
    let started = Instant::now();
    let consumer = peers::consumer(brokers, topic, "read_uncommitted")?;
    let mut read = 0;
    while read < records {
        let message = consumer.poll(KAFKA_TIMEOUT).with_context(|| format!("{read} of {records} records came"))?;
        drop(message?);
        read += 1;
    }
    Ok(started.elapsed().as_secs_f64())
}
