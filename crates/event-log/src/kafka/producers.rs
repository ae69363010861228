//! The two producers of a publisher, and how they are tuned.
//!
//! They take turns. The brokers write a transaction's markers after they have answered its commit, and tell whoever
//! begins another meanwhile to come again: librdkafka rests 20 ms then. The other producer has no transaction under way, so it
//! begins at once. Transactions one behind the other take 2.7 ms that way instead of 5.2 (p99 11 instead of 24; both medians
//! of three runs by turns). Never are two of them under way: what is fenced with one producer is fenced with both.

use std::collections::BTreeMap;
use std::time::Instant;

use rdkafka::producer::{BaseProducer, Producer};

use super::KafkaSettings;
use super::client::{Events, create, publish_error, time_left};
use crate::LogError;

/// The publisher's own `PUBLISH_TIMEOUT` for librdkafka: no record and no request waits longer.
const PUBLISH_TIMEOUT_MS: &str = "10000";
/// The longest pause between attempts to connect. A step of a transaction ends with an attempt, so with librdkafka's ten
/// seconds a batch could take twice its time.
const RECONNECT_BACKOFF_MAX_MS: &str = "500";
/// The first pause before a request is tried again. A transaction that begins while the brokers still write the markers of
/// the last one is told to try again; with librdkafka's 100 ms that is the slowest percent of all batches.
const RETRY_BACKOFF_MS: &str = "5";
/// When the brokers give up a transaction whose publisher died. It must be longer than a batch may take.
const TRANSACTION_TIMEOUT_MS: &str = "15000";
/// How many records, and KiB of them, the brokers may be behind; one more waits.
const MAX_UNDELIVERED: &str = "100000";
const MAX_UNDELIVERED_KIB: &str = "262144";

/// Both producers of the publisher called `name`, with batches of up to `batch_bytes`, once both have fenced those before them.
///
/// One after the other, and the first is the first to publish. So of two publishers that are opened at once one has no first
/// producer any more, and never comes to use its second. At the same time, one that is in the middle of its turns could be
/// left its second after its position has been read.
pub(super) fn open(
    settings: &KafkaSettings,
    name: &str,
    batch_bytes: u64,
    deadline: Instant,
) -> Result<[BaseProducer<Events>; 2], LogError> {
    let open = |name: &str| {
        let producer = producer(settings, name, batch_bytes)?;
        let fenced = producer.init_transactions(time_left(deadline));
        fenced.map_err(|error| publish_error(&producer, "fencing earlier publishers", &error))?;
        Ok(producer)
    };
    Ok([open(name)?, open(&format!("{name}-2"))?])
}

/// Below what no partition should end: what either producer knows of it.
pub(super) fn known_ends(producers: &[BaseProducer<Events>; 2]) -> BTreeMap<i32, i64> {
    let [first, second] = producers.each_ref().map(|producer| producer.context().known_ends());
    let mut ends = first;
    for (partition, end) in second {
        let known = ends.entry(partition).or_insert(end);
        *known = end.max(*known);
    }
    ends
}

/// One of the producers, with batches of up to so many bytes. Nothing is asked of the brokers yet.
pub(super) fn producer(
    settings: &KafkaSettings,
    name: &str,
    batch_bytes: u64,
) -> Result<BaseProducer<Events>, LogError> {
    let batch_bytes = batch_bytes.to_string();
    let tuning = [
        ("linger.ms", "0"),
        ("message.timeout.ms", PUBLISH_TIMEOUT_MS),
        ("socket.timeout.ms", PUBLISH_TIMEOUT_MS),
        ("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS),
        ("reconnect.backoff.max.ms", RECONNECT_BACKOFF_MAX_MS),
        ("retry.backoff.ms", RETRY_BACKOFF_MS),
        ("queue.buffering.max.messages", MAX_UNDELIVERED),
        ("queue.buffering.max.kbytes", MAX_UNDELIVERED_KIB),
    ];
    let fixed = [
        ("transactional.id", name),
        ("batch.size", &batch_bytes),
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("partitioner", "murmur2_random"),
    ];
    create(settings, "publisher", &tuning, &fixed)
}
