//! What Kafka itself takes, and what its transactions cost: a bare producer and a bare consumer of librdkafka on the broker, at the
//! rate and with the records of the services, tuned as theirs are.
//!
//! A record is due on a fixed schedule, as an account is committed on one, and it has arrived when the consumer is handed it. In a
//! transaction goes what became due while the last one was on its way. The relay does better: its batches share a transaction for
//! 100 ms, so that a record need not wait for the end of the last one.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use event_log::{DEFAULT_PARTITION_COUNT, Record};
use hdrhistogram::Histogram;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::accounts::MadeAccount;
use crate::figure::{Figure, Unit};
use crate::load::{Schedule, micros};
use crate::milliseconds;
use crate::servers::Servers;

/// How long any step may take. The broker is on this machine.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause of a producer with records under way, as the relay's.
const DRAIN_PAUSE: Duration = Duration::from_micros(100);

/// From due to arrived, in microseconds, without transactions. The topic's name says of what it is.
pub(crate) fn bare(
    servers: &Servers,
    name: &str,
    schedule: Schedule,
    warm_up: Duration,
) -> anyhow::Result<Histogram<u64>> {
    run(servers, name, None, schedule, warm_up)
}

/// What transactions add to that: one turn of either way to read them.
pub(crate) fn transactions(servers: &Servers, schedule: Schedule, warm_up: Duration) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for isolation in ["read_uncommitted", "read_committed"] {
        println!("bare librdkafka, transactions, {isolation}, {} records a second", schedule.rate);
        let histogram = run(servers, isolation, Some(isolation), schedule, warm_up)?;
        for (at, label) in [(0.5, "p50"), (0.99, "p99")] {
            let what = format!("  bare librdkafka, transactions, {isolation}, {label}");
            figures.push(Figure::new(what, milliseconds(&histogram, at), Unit::Milliseconds));
        }
    }
    Ok(figures)
}

/// With transactions if it is said how they are read.
fn run(
    servers: &Servers,
    name: &str,
    transactions: Option<&str>,
    schedule: Schedule,
    warm_up: Duration,
) -> anyhow::Result<Histogram<u64>> {
    drop(servers.topic(name)?);
    let topic = servers.topic_name(name);
    let consumer = consumer(&servers.brokers, &topic, transactions.unwrap_or("read_uncommitted"))?;
    let producer = producer(&servers.brokers, transactions.map(|_| &topic))?;
    let timetable = Timetable { start: Instant::now() + Duration::from_millis(100), schedule };
    thread::scope(|scope| {
        let consuming = scope.spawn(|| consume(&consumer, timetable, warm_up));
        produce(&producer, &topic, transactions.is_some(), timetable)?;
        consuming.join().ok().context("the consumer panicked")?
    })
}

/// When each record is due.
#[derive(Clone, Copy)]
struct Timetable {
    start: Instant,
    schedule: Schedule,
}

impl Timetable {
    fn count(self) -> u32 {
        self.schedule.rate * self.schedule.seconds
    }

    fn due(self, number: u32) -> Instant {
        self.start + Duration::from_secs(1) * number / self.schedule.rate
    }
}

/// A producer of records that all replicas acknowledge, in the partitions that Kafka's own clients would choose.
pub(crate) fn idempotent(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("enable.idempotence", "true").set("acks", "all");
    config.set("partitioner", "murmur2_random");
    config
}

fn producer(brokers: &str, transactional_id: Option<&String>) -> anyhow::Result<BaseProducer> {
    let mut config = idempotent(brokers);
    config.set("linger.ms", "0").set("retry.backoff.ms", "5");
    if let Some(id) = transactional_id {
        config.set("transactional.id", id);
    }
    let producer: BaseProducer = config.create()?;
    if transactional_id.is_some() {
        producer.init_transactions(STEP_TIMEOUT)?;
    }
    Ok(producer)
}

/// A consumer of the whole topic from its beginning, tuned as the feed's reader is.
pub(crate) fn consumer(brokers: &str, topic: &str, isolation: &str) -> anyhow::Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "bench-no-group").set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false").set("isolation.level", isolation);
    config.set("fetch.error.backoff.ms", "20").set("fetch.queue.backoff.ms", "10");
    let consumer: BaseConsumer = config.create()?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..DEFAULT_PARTITION_COUNT {
        partitions.add_partition_offset(topic, partition as i32, Offset::Beginning)?;
    }
    consumer.assign(&partitions)?;
    Ok(consumer)
}

fn produce(producer: &BaseProducer, topic: &str, transactions: bool, timetable: Timetable) -> anyhow::Result<()> {
    let mut next = 0;
    while next < timetable.count() {
        thread::sleep(timetable.due(next).saturating_duration_since(Instant::now()));
        if transactions {
            producer.begin_transaction()?;
        }
        while next < timetable.count() && timetable.due(next) <= Instant::now() {
            send(producer, topic, &MadeAccount(next.into()).first_record())?;
            next += 1;
        }
        if transactions {
            drain(producer)?;
            producer.commit_transaction(STEP_TIMEOUT)?;
        }
        producer.poll(Duration::ZERO);
    }
    drain(producer)
}

/// Has the producer take a record, as soon as it has room for it.
pub(crate) fn send(
    producer: &BaseProducer<impl ProducerContext<DeliveryOpaque = ()>>,
    topic: &str,
    record: &Record,
) -> anyhow::Result<()> {
    let mut message = BaseRecord::<[u8], [u8]>::to(topic);
    message.key = record.key.as_deref();
    message.payload = record.value.as_deref();
    let add = |headers: OwnedHeaders, (key, value)| headers.insert(Header { key, value: Some(value) });
    message.headers = Some(record.headers.iter().fold(OwnedHeaders::new(), add));
    let deadline = Instant::now() + STEP_TIMEOUT;
    loop {
        message = match producer.send(message) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), message)) if Instant::now() < deadline => {
                producer.poll(DRAIN_PAUSE);
                message
            }
            Err((error, _)) => return Err(error.into()),
        };
    }
}

fn drain(producer: &BaseProducer) -> anyhow::Result<()> {
    let deadline = Instant::now() + STEP_TIMEOUT;
    loop {
        let left = producer.in_flight_count();
        if left == 0 {
            return Ok(());
        }
        producer.poll(Duration::ZERO);
        if producer.in_flight_count() >= left {
            if Instant::now() >= deadline {
                bail!("the broker did not take the records in time");
            }
            thread::park_timeout(DRAIN_PAUSE);
        }
    }
}

/// From due to arrived, in microseconds.
fn consume(consumer: &BaseConsumer, timetable: Timetable, warm_up: Duration) -> anyhow::Result<Histogram<u64>> {
    let mut histogram = Histogram::new(3)?;
    let mut left = timetable.count();
    let (deadline, counts_from) = (timetable.due(left) + STEP_TIMEOUT, timetable.start + warm_up);
    while left > 0 {
        if Instant::now() >= deadline {
            bail!("{left} records did not arrive in time");
        }
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let (arrived, message) = (Instant::now(), message?);
        let account = MadeAccount::of(std::str::from_utf8(message.key().unwrap_or_default())?.parse()?);
        let number = u32::try_from(account.context("a record that was not sent here")?.0)?;
        left -= 1;
        let due = timetable.due(number);
        if due >= counts_from {
            histogram.record(micros(arrived.saturating_duration_since(due)))?;
        }
    }
    Ok(histogram)
}
