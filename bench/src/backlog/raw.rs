//! What the logs take by themselves: bare producers of the same records, which are made beforehand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use event_log::{EmbeddedLog, EmbeddedSettings, EventLog, Record};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

use crate::peers;
use crate::servers::Servers;

/// Records of one batch of the embedded log, as the relay's.
const BATCH: usize = 1_000;

/// How long the broker may take for the last of them.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);

/// Records a second that the embedded log's publisher takes, a batch after the other, each of which it syncs.
pub(super) fn embedded(records: &[Record]) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let log = EmbeddedLog::open(EmbeddedSettings::at(folder.path().join("event-log.db")))?;
    let mut publisher = log.publisher("bench")?;
    let started = Instant::now();
    for (number, batch) in (1..).zip(records.chunks(BATCH)) {
        publisher.publish(batch, number)?;
    }
    Ok(records.len() as f64 / started.elapsed().as_secs_f64())
}

/// Counts deliveries that failed.
#[derive(Default)]
struct Failures(AtomicU64);

impl rdkafka::ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        if delivery.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Records a second that librdkafka's idempotent producer has acknowledged by Kafka, as many under way as it likes.
pub(super) fn kafka(servers: &Servers, name: &str, records: &[Record]) -> anyhow::Result<f64> {
    drop(servers.topic(name)?);
    let topic = servers.topic_name(name);
    let config = peers::idempotent(&servers.brokers);
    let started = Instant::now();
    let producer: BaseProducer<Failures> = config.create_with_context(Failures::default())?;
    for record in records {
        peers::send(&producer, &topic, record)?;
    }
    producer.flush(FLUSH_TIMEOUT)?;
    let rate = records.len() as f64 / started.elapsed().as_secs_f64();
    let failed = producer.context().0.load(Ordering::Relaxed);
    ensure!(failed == 0, "{failed} records were not delivered");
    Ok(rate)
}
