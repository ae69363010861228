//! What all clients of librdkafka share: settings, errors and logging.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka::{ClientContext, Message};

use super::KafkaSettings;
use super::properties::{canonical, creation_error};
use crate::LogError;

/// The errors of a producer that a newer one has fenced.
const FENCED: [RDKafkaErrorCode; 3] =
    [RDKafkaErrorCode::Fenced, RDKafkaErrorCode::ProducerFenced, RDKafkaErrorCode::InvalidProducerEpoch];

/// The tuning of all clients. librdkafka waits half of `reconnect.backoff.ms` before it connects to each further broker; a start with a
/// checkpoint takes half as long with 20 ms as with the default of 100.
const TUNING: [(&str, &str); 2] = [("client.id", "tandem"), ("reconnect.backoff.ms", "20")];

/// An error that has not recurred for this long is over. librdkafka repeats an error at each attempt, at least once a second.
const TROUBLE_LASTS: Duration = Duration::from_secs(3);

/// The most events that one call drains. The next call drains the others.
const EVENTS_DROPPED_A_CALL: usize = 10_000;
/// How long a drain waits for each event. A poll that does not wait ends at the first log line.
const DRAIN_TIME: Duration = Duration::from_millis(1);

/// Receives the events of one client. An error is logged once until it is over, so that an outage is one line.
pub(super) struct Events {
    role: &'static str,
    received: Mutex<Received>,
}

#[derive(Default)]
struct Received {
    /// The codes of the current errors, each with the time of its last occurrence.
    trouble: BTreeMap<i32, Instant>,
    /// The first failed delivery since the last call of `take_failed_delivery`, with the record's key.
    failed_delivery: Option<(KafkaError, String)>,
    /// The lowest possible offset of the next record of each partition.
    ends: BTreeMap<i32, i64>,
    /// A record that got a lower offset: its partition, its offset, and the end before it.
    too_low: Option<(i32, i64, i64)>,
    /// Why the last connection failed for a security reason. Other errors only say that the brokers cannot be reached.
    security_failure: Option<String>,
}

impl Events {
    pub(super) fn new(role: &'static str) -> Events {
        Events { role, received: Mutex::default() }
    }

    /// Logs an error that is not current yet.
    pub(super) fn record_trouble(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().map_or(0, |code| code as i32);
        if self.received.lock().trouble.insert(code, Instant::now()).is_none() {
            tracing::warn!(client = self.role, %error, reason, "trouble with Kafka");
        }
    }

    /// Records that a request succeeded. An error that recurred recently stays current: it may be of another partition or broker.
    pub(super) fn record_answer(&self) {
        let trouble = &mut self.received.lock().trouble;
        if trouble.is_empty() {
            return;
        }
        trouble.retain(|_, last| last.elapsed() < TROUBLE_LASTS);
        if trouble.is_empty() {
            tracing::info!(client = self.role, "Kafka answers again");
        }
    }

    /// The first failed delivery since the last call, with the record's key.
    pub(super) fn take_failed_delivery(&self) -> Option<(KafkaError, String)> {
        self.received.lock().failed_delivery.take()
    }

    /// Sets the end of a partition before anything is delivered to it.
    pub(super) fn set_end(&self, partition: i32, end: i64) {
        self.received.lock().ends.insert(partition, end);
    }

    /// The end of each partition as far as this client knows. No partition that is intact ends earlier.
    pub(super) fn known_ends(&self) -> BTreeMap<i32, i64> {
        self.received.lock().ends.clone()
    }

    /// Describes how the topic has lost records, if a delivered record shows it.
    pub(super) fn lost_records(&self) -> Option<String> {
        let (partition, offset, end) = self.received.lock().too_low?;
        Some(format!("partition {partition} gave offset {offset} to a record and had {end} before"))
    }
}

/// Whether an event of librdkafka says that a newer producer has fenced this one, which is not a fault. librdkafka reports it as text,
/// once for the transaction and once for the client.
fn is_fencing(text: &str) -> bool {
    FENCED.iter().any(|code| {
        // `Fenced (Local: This instance ...)`
        let name_and_text = code.to_string();
        let own_text = name_and_text.split_once(" (").and_then(|(_name, text)| text.strip_suffix(')'));
        own_text.is_some_and(|own_text| text.contains(own_text))
    })
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            _ if is_fencing(message) => {
                tracing::debug!(client = self.role, facility, "{message}")
            }
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(client = self.role, facility, "{message}");
            }
            // With `KAFKA_DEBUG` only.
            _ => tracing::debug!(client = self.role, facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if is_fencing(&error.to_string()) || is_fencing(reason) {
            tracing::debug!(client = self.role, "{reason}");
            return;
        }
        if matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL)) {
            self.received.lock().security_failure = Some(reason.to_owned());
        }
        self.record_trouble(&error, reason);
    }
}

impl ConsumerContext for Events {}

impl ProducerContext for Events {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Err((error, message)) => {
                let key = || String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
                self.received.lock().failed_delivery.get_or_insert_with(|| (error.clone(), key()));
            }
            // The brokers have no offset for a record that was resent long after they accepted it.
            Ok(message) if message.offset() < 0 => {}
            Ok(message) => {
                let (partition, offset) = (message.partition(), message.offset());
                let mut received = self.received.lock();
                let end = received.ends.insert(partition, offset + 1).unwrap_or(0);
                if offset < end {
                    received.too_low = Some((partition, offset, end));
                }
            }
        }
    }
}

/// Creates a client. The operator's settings override `tuning`, and `fixed` overrides the operator's settings.
pub(super) fn create<T: FromClientConfigAndContext<Events>>(
    settings: &KafkaSettings,
    role: &'static str,
    tuning: &[(&str, &str)],
    fixed: &[(&str, &str)],
) -> Result<T, LogError> {
    let mut config = ClientConfig::new();
    let extra = settings.extra.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let tuned = TUNING.into_iter().chain(tuning.iter().copied());
    // Otherwise a producer has the brokers recreate a deleted topic with their defaults.
    let common = [("bootstrap.servers", settings.brokers.as_str()), ("allow.auto.create.topics", "false")];
    let fixed = common.into_iter().chain(fixed.iter().copied());
    for (name, value) in tuned.chain(extra).chain(fixed) {
        config.set(canonical(name), value);
    }
    // librdkafka writes lines of its log to stderr itself while a batch is consumed, and a thread that does so blocks while nobody reads
    // stderr. The important lines are reported as errors, too.
    let is_debugging = config.get("debug").is_some();
    config.set_log_level(if is_debugging { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Critical });
    config.create_with_context(Events::new(role)).map_err(|error| creation_error(&settings.extra, &error))
}

/// Handles the pending events of a client that is never polled for records, so that they do not accumulate.
pub(super) fn drain_events(client: &BaseConsumer<Events>) {
    for _ in 0..EVENTS_DROPPED_A_CALL {
        if client.poll(DRAIN_TIME).is_none() {
            return;
        }
    }
}

/// Fetches the topic's metadata. If the brokers rejected the client for a security reason, the error includes the reason.
pub(super) fn fetch_topic(
    client: &BaseConsumer<Events>,
    topic: &str,
    doing: &str,
    deadline: Instant,
) -> Result<Metadata, LogError> {
    let fetched = client.fetch_metadata(Some(topic), time_left(deadline));
    if fetched.is_err() {
        drain_events(client);
    }
    let security_failure = &mut client.context().received.lock().security_failure;
    fetched.inspect(|_| *security_failure = None).map_err(|error| {
        match (log_error(doing, &error), &*security_failure) {
            (LogError::Unavailable(text), Some(reason)) => LogError::Unavailable(format!("{text}: {reason}")),
            (error, _) => error,
        }
    })
}

/// The number of the topic's partitions.
pub(super) fn partition_count(client: &BaseConsumer<Events>, topic: &str, deadline: Instant) -> Result<u32, LogError> {
    let metadata = fetch_topic(client, topic, "asking for the topic's partitions", deadline)?;
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

/// The start and end of a partition.
pub(super) fn watermarks(
    client: &BaseConsumer<Events>,
    topic: &str,
    partition: u32,
    deadline: Instant,
) -> Result<(u64, u64), LogError> {
    let (low, high) = client
        .fetch_watermarks(topic, partition as i32, time_left(deadline))
        .map_err(|error| log_error("asking where the topic begins and ends", &error))?;
    Ok((low.max(0) as u64, high.max(0) as u64))
}

/// The time until `deadline`, at least a millisecond: zero means no limit to some of librdkafka's calls.
pub(super) fn time_left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// The error for a user of the log.
pub(super) fn log_error(doing: &str, error: &KafkaError) -> LogError {
    use RDKafkaErrorCode as Code;
    let text = format!("{doing}: {error}");
    match error.rdkafka_error_code() {
        Some(code) if FENCED.contains(&code) => LogError::Fenced(text),
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

/// The error for a user of a producer. After a fatal error (fencing is one) every later error only follows from it, so the fatal error
/// is returned.
pub(super) fn publish_error(producer: &BaseProducer<Events>, doing: &str, error: &KafkaError) -> LogError {
    match producer.client().fatal_error() {
        Some((code, reason)) => {
            let fatal = log_error(doing, &KafkaError::Global(code));
            match fatal {
                LogError::Fenced(_) => LogError::Fenced(format!("{doing}: {reason}")),
                _ => LogError::Unavailable(format!("{doing}: {reason}")),
            }
        }
        None => log_error(doing, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fencing_is_distinguished_from_fatal_errors() {
        for fencing in [
            "[thrd:main]: Fatal error: Local: This instance has been fenced by a newer instance: Failed to add offsets",
            "[thrd:main]: Fatal transaction error: Failed: Local: This instance has been fenced by a newer instance (_FENCED)",
            "Fatal error: Broker: Producer attempted an operation with an old epoch: Failed to end transaction",
            &KafkaError::Global(RDKafkaErrorCode::Fenced).to_string(),
        ] {
            assert!(is_fencing(fencing), "{fencing}");
        }
        for fatal in [
            "[thrd:main]: Fatal error: Broker: Broker received an out of order sequence number: Failed to send",
            &KafkaError::Global(RDKafkaErrorCode::Fatal).to_string(),
        ] {
            assert!(!is_fencing(fatal), "{fatal}");
        }
    }
}
