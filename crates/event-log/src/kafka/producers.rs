//! The two producers of a publisher.
//!
//! They take turns, a transaction each, because brokers write a transaction's markers after they answer its commit and reject the
//! producer's next transaction until then (decision 0010). At most one transaction is open.

use std::collections::BTreeMap;
use std::time::Instant;

use rdkafka::producer::{BaseProducer, Producer};

use super::KafkaSettings;
use super::client::{Events, create, publish_error, time_left};
use crate::LogError;

/// The publisher's `PUBLISH_TIMEOUT`, for records and requests in librdkafka.
const PUBLISH_TIMEOUT_MS: &str = "10000";
/// The longest pause between attempts to connect. With librdkafka's default of ten seconds a batch could take twice its time.
const RECONNECT_BACKOFF_MAX_MS: &str = "500";
/// The first pause before a retry. Brokers reject a transaction while they write the markers of the last one; librdkafka's default of
/// 100 ms would be the p99 of a batch.
const RETRY_BACKOFF_MS: &str = "5";
/// When the brokers abort a transaction whose publisher died: longer than a batch may take.
const TRANSACTION_TIMEOUT_MS: &str = "15000";
/// The most records, and KiB of records, in librdkafka's queue.
const MAX_UNDELIVERED: &str = "100000";
const MAX_UNDELIVERED_KIB: &str = "262144";

/// Opens both producers of the publisher called `name`, with batches of up to `batch_bytes`, and fences the earlier ones.
///
/// The first producer is opened before the second and publishes first. So of two publishers that are opened at once, one has lost its
/// first producer and never uses its second.
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

/// The end of each partition as far as either producer knows.
pub(super) fn known_ends(producers: &[BaseProducer<Events>; 2]) -> BTreeMap<i32, i64> {
    let mut ends = BTreeMap::new();
    for (partition, end) in producers.iter().flat_map(|producer| producer.context().known_ends()) {
        let known = ends.entry(partition).or_insert(end);
        *known = end.max(*known);
    }
    ends
}

/// Creates a producer with batches of up to `batch_bytes`. Contacts no broker.
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
