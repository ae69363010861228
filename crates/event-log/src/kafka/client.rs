//! What all clients of librdkafka have in common: settings, errors, and what they log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::{ClientContext, Message};

use super::KafkaSettings;
use crate::LogError;

/// How many events of a client that is not polled are dropped in one go. Beyond that the next call goes on.
const EVENTS_DROPPED_A_CALL: usize = 10_000;

/// Hears what librdkafka says about one client. The same trouble is logged once until it is over: an outage is one line,
/// not one a second for hours.
pub(super) struct Events {
    role: &'static str,
    /// The codes of the errors since all was well.
    trouble: Mutex<BTreeSet<i32>>,
    /// The first delivery that failed since it was last asked for.
    failed_delivery: Mutex<Option<KafkaError>>,
    /// What is known of each partition's records, by deliveries.
    delivered: Mutex<Delivered>,
}

/// Where records were put.
#[derive(Default)]
struct Delivered {
    /// No record that is delivered from now on has a lower offset, by partition.
    ends: BTreeMap<i32, i64>,
    /// A record that had: its partition, its offset, and the offset that was expected at least.
    behind: Option<(i32, i64, i64)>,
}

impl Events {
    pub(super) fn new(role: &'static str) -> Events {
        Events { role, trouble: Mutex::default(), failed_delivery: Mutex::default(), delivered: Mutex::default() }
    }

    /// Logs the error if it is a new one.
    pub(super) fn note_trouble(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().map_or(0, |code| code as i32);
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.insert(code) {
            tracing::warn!(client = self.role, %error, reason, "trouble with Kafka");
        }
    }

    /// Notes that Kafka answers.
    pub(super) fn all_is_well(&self) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if !trouble.is_empty() {
            trouble.clear();
            tracing::info!(client = self.role, "Kafka answers again");
        }
    }

    /// The first delivery that failed since the last call.
    pub(super) fn take_failed_delivery(&self) -> Option<KafkaError> {
        self.failed_delivery.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Notes where a partition ends before anything is delivered to it.
    pub(super) fn note_end(&self, partition: i32, end: i64) {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner).ends.insert(partition, end);
    }

    /// Below what no partition should end, by partition.
    pub(super) fn known_ends(&self) -> BTreeMap<i32, i64> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner).ends.clone()
    }

    /// How records were lost that were there before those delivered, if so.
    pub(super) fn lost_records(&self) -> Option<String> {
        let (partition, offset, end) = self.delivered.lock().unwrap_or_else(PoisonError::into_inner).behind?;
        Some(format!("partition {partition} gave offset {offset} to a record and had {end} before"))
    }
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(client = self.role, facility, "{message}");
            }
            // What matters of the rest comes as an error too; these lines come with every attempt to connect.
            _ => tracing::debug!(client = self.role, facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note_trouble(&error, reason);
    }
}

impl ConsumerContext for Events {}

impl ProducerContext for Events {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Err((error, _)) => {
                let mut failed = self.failed_delivery.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert_with(|| error.clone());
            }
            // The brokers do not remember the offset of a record that was sent again long after they took it.
            Ok(message) if message.offset() < 0 => {}
            Ok(message) => {
                let (partition, offset) = (message.partition(), message.offset());
                let mut delivered = self.delivered.lock().unwrap_or_else(PoisonError::into_inner);
                let end = delivered.ends.insert(partition, offset + 1).unwrap_or(0);
                if offset < end {
                    delivered.behind = Some((partition, offset, end));
                }
            }
        }
    }
}

/// Creates a client. `tuning` can be overridden by the settings' extras, `fixed` cannot.
pub(super) fn create<T: FromClientConfigAndContext<Events>>(
    settings: &KafkaSettings,
    role: &'static str,
    tuning: &[(&str, &str)],
    fixed: &[(&str, &str)],
) -> Result<T, LogError> {
    let mut config = ClientConfig::new();
    config.set("client.id", "tandem");
    for (name, value) in tuning {
        config.set(*name, *value);
    }
    for (name, value) in &settings.extra {
        config.set(name, value);
    }
    config.set("bootstrap.servers", &settings.brokers);
    for (name, value) in fixed {
        config.set(*name, *value);
    }
    config
        .create_with_context(Events::new(role))
        .map_err(|error| LogError::Refused(format!("Kafka's client does not take its settings: {error}")))
}

/// Throws away what a client that is never polled was told since the last time, so that it does not pile up.
pub(super) fn drain_events(client: &BaseConsumer<Events>) {
    for _ in 0..EVENTS_DROPPED_A_CALL {
        if client.poll(Duration::ZERO).is_none() {
            return;
        }
    }
}

/// How many partitions the topic has.
pub(super) fn partition_count(client: &BaseConsumer<Events>, topic: &str, deadline: Instant) -> Result<u32, LogError> {
    let metadata = client
        .fetch_metadata(Some(topic), time_left(deadline))
        .map_err(|error| log_error("asking for the topic's partitions", &error))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    match found {
        Some(found) if found.error().is_none() && !found.partitions().is_empty() => Ok(found.partitions().len() as u32),
        Some(found) => {
            let code = found.error().map_or(RDKafkaErrorCode::UnknownTopicOrPartition, RDKafkaErrorCode::from);
            Err(log_error(&format!("topic {topic}"), &KafkaError::MetadataFetch(code)))
        }
        None => Err(LogError::Unavailable(format!("there is no topic {topic}"))),
    }
}

/// What is left until `deadline`; at least a millisecond, as nothing at all means for ever to some of librdkafka's calls.
pub(super) fn time_left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// What an error of Kafka's means to a user of the log.
pub(super) fn log_error(doing: &str, error: &KafkaError) -> LogError {
    use RDKafkaErrorCode as Code;
    let text = format!("{doing}: {error}");
    match error.rdkafka_error_code() {
        Some(Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch) => LogError::Fenced(text),
        Some(
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::MessageSizeTooLarge
            | Code::InvalidRecord
            | Code::PolicyViolation
            | Code::UnsupportedFeature
            | Code::UnsupportedVersion,
        ) => LogError::Refused(text),
        _ => LogError::Unavailable(text),
    }
}
