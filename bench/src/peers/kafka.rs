//! librdkafka without the services: records like theirs, produced and consumed with the settings that theirs have.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use uuid::{NoContext, Timestamp, Uuid};

use crate::load::{Schedule, micros, new_histogram};
use crate::servers::Servers;

/// The name in the table.
pub(crate) const NAME: &str = "librdkafka alone";

/// How long any step may take. The broker is on this machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The partitions of a topic that the test harness or a service creates.
const PARTITIONS: i32 = 3;

/// Milliseconds since 1970 that the ids begin at. Each account's is one later.
const FIRST_MILLISECOND: u64 = 1_735_689_600_000;

/// The id of account `number`: a UUIDv7 whose time tells the number.
pub(super) fn account_id(number: u64) -> Uuid {
    let milliseconds = FIRST_MILLISECOND + number;
    Uuid::new_v7(Timestamp::from_unix(NoContext, milliseconds / 1_000, (milliseconds % 1_000) as u32 * 1_000_000))
}

/// The number of the account with this id.
fn number_of(key: &[u8]) -> Option<u64> {
    let (seconds, nanoseconds) = Uuid::try_parse_ascii(key).ok()?.get_timestamp()?.to_unix();
    (seconds * 1_000 + u64::from(nanoseconds / 1_000_000)).checked_sub(FIRST_MILLISECOND)
}

/// Sends the event of a new account, as docs/api.md describes it, and waits for room in the producer's queue.
fn send(producer: &BaseProducer, topic: &str, number: u64) -> anyhow::Result<()> {
    let id = account_id(number).to_string();
    let value = format!(r#"{{"type":"account.created","account_id":"{id}","status":"ACTIVE"}}"#);
    let event_id = format!("{id}:1");
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", &event_id),
        ("ce_source", "/account-service"),
        ("ce_type", "account.created"),
        ("ce_time", "2025-11-25T10:30:00.123456Z"),
        ("ce_subject", &id),
        ("ce_sequence", "1"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    let headers = headers
        .into_iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
    let mut record = BaseRecord::to(topic).key(&id).payload(&value).headers(headers);
    let started = Instant::now();
    loop {
        record = match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record))
                if started.elapsed() < TIMEOUT =>
            {
                producer.poll(Duration::from_millis(1));
                record
            }
            Err((error, _)) => return Err(error.into()),
        };
    }
}

fn producer(servers: &Servers, settings: &[(&str, &str)]) -> anyhow::Result<BaseProducer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &servers.brokers).set("enable.idempotence", "true").set("acks", "all");
    config.set("partitioner", "murmur2_random");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    Ok(config.create()?)
}

/// A consumer of the whole topic from its start.
fn consumer(servers: &Servers, topic: &str, group: &str) -> anyhow::Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &servers.brokers).set("group.id", group).set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false").set("isolation.level", "read_uncommitted");
    config.set("fetch.error.backoff.ms", "20").set("fetch.queue.backoff.ms", "10");
    let consumer: BaseConsumer = config.create()?;
    consumer.assign(&positions(topic, |_| Ok(Offset::Beginning))?)?;
    Ok(consumer)
}

fn positions(topic: &str, at: impl Fn(i32) -> anyhow::Result<Offset>) -> anyhow::Result<TopicPartitionList> {
    let mut positions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        positions.add_partition_offset(topic, partition, at(partition)?)?;
    }
    Ok(positions)
}

/// A topic of its own that is not compacted: compaction would take a core while something is measured.
pub(crate) fn new_topic(servers: &Servers) -> String {
    let topic = test_harness::unique_name();
    test_harness::make_topic_that_deletes(&servers.brokers, &topic);
    topic
}

/// Microseconds from when a record is due until the consumer is handed it: each is sent by itself, without transactions.
pub(crate) fn latency(servers: &Servers, schedule: Schedule) -> anyhow::Result<Histogram<u64>> {
    let topic = new_topic(servers);
    let consumer = consumer(servers, &topic, NAME)?;
    let producer = producer(servers, &[("linger.ms", "0")])?;
    let start = Instant::now() + Duration::from_millis(500);
    thread::scope(|scope| {
        let consuming = scope.spawn(|| {
            let mut latencies = new_histogram();
            for _ in 0..schedule.count() {
                let message = consumer.poll(TIMEOUT).context("a record did not arrive")??;
                let arrived = Instant::now();
                let number = message.key().and_then(number_of).context("a record that was not sent here")?;
                let (due, counts) = schedule.due(start, number);
                if counts {
                    latencies.record(micros(arrived.saturating_duration_since(due)))?;
                }
            }
            anyhow::Ok(latencies)
        });
        for number in 0..schedule.count() {
            let (due, _) = schedule.due(start, number);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            send(&producer, &topic, number)?;
            producer.poll(Duration::ZERO);
        }
        producer.flush(TIMEOUT)?;
        consuming.join().ok().context("the consumer panicked")?
    })
}

/// Fills `topic` with the events of so many accounts.
pub(crate) fn fill(servers: &Servers, topic: &str, records: u64) -> anyhow::Result<()> {
    let settings = [("linger.ms", "20"), ("batch.size", "1000000"), ("queue.buffering.max.messages", "1000000")];
    let producer = producer(servers, &settings)?;
    for number in 0..records {
        send(&producer, topic, number)?;
    }
    Ok(producer.flush(TIMEOUT)?)
}

/// Commits the end of `topic` as the position of `group`.
pub(crate) fn skip_to_end(servers: &Servers, topic: &str, group: &str) -> anyhow::Result<()> {
    let consumer = consumer(servers, topic, group)?;
    let end = |partition| anyhow::Ok(Offset::Offset(consumer.fetch_watermarks(topic, partition, TIMEOUT)?.1));
    Ok(consumer.commit(&positions(topic, end)?, CommitMode::Sync)?)
}

/// Records a second that a consumer reads and discards.
pub(crate) fn read_and_discard(servers: &Servers, topic: &str, records: u64) -> anyhow::Result<f64> {
    let started = Instant::now();
    let consumer = consumer(servers, topic, NAME)?;
    for read in 0..records {
        consumer.poll(TIMEOUT).with_context(|| format!("{read} of {records} records arrived"))??;
    }
    Ok(records as f64 / started.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_its_number() {
        for number in [0, 1, 999, 12_345_678] {
            assert_eq!(number_of(account_id(number).to_string().as_bytes()), Some(number));
        }
    }
}
