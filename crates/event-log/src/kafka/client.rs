//! What all clients of librdkafka have in common: settings, errors, and what they log.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

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

/// What a producer ends with when a newer one has taken over.
const TAKEOVERS: [RDKafkaErrorCode; 3] =
    [RDKafkaErrorCode::Fenced, RDKafkaErrorCode::ProducerFenced, RDKafkaErrorCode::InvalidProducerEpoch];

/// How all clients are tuned. librdkafka rests half of the first pause between attempts to connect also before it connects to one
/// broker more, such as the first it was told of: with 20 ms instead of its 100 a start with a checkpoint takes half as long.
const TUNING: [(&str, &str); 2] = [("client.id", "tandem"), ("reconnect.backoff.ms", "20")];

/// How long after an error it may still come back. librdkafka repeats one at each attempt, which are a second apart at most.
const TROUBLE_LASTS: Duration = Duration::from_secs(3);

/// How many events of a client that is not polled are dropped in one go. Beyond that the next call goes on.
const EVENTS_DROPPED_A_CALL: usize = 10_000;
/// How long to listen for them each time. A poll that does not wait ends at the first line for the log.
const DRAIN_TIME: Duration = Duration::from_millis(1);

/// Hears what librdkafka says about one client. The same trouble is logged once until it is over: an outage is one line,
/// not one a second for hours.
pub(super) struct Events {
    role: &'static str,
    /// The codes of the errors since all was well, each with when it came last.
    trouble: Mutex<BTreeMap<i32, Instant>>,
    /// The first delivery that failed since it was last asked for, with the record's key.
    failed_delivery: Mutex<Option<(KafkaError, String)>>,
    /// What is known of each partition's records, by deliveries.
    delivered: Mutex<Delivered>,
    /// Why the last connection that failed for security's sake did: errors say no more than that brokers are not there.
    insecurity: Mutex<Option<String>>,
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
        Events {
            role,
            trouble: Mutex::default(),
            failed_delivery: Mutex::default(),
            delivered: Mutex::default(),
            insecurity: Mutex::default(),
        }
    }

    /// Logs the error if it is a new one.
    pub(super) fn note_trouble(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().map_or(0, |code| code as i32);
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.insert(code, Instant::now()).is_none() {
            tracing::warn!(client = self.role, %error, reason, "trouble with Kafka");
        }
    }

    /// Notes that Kafka answers. An error that still comes back is not over for that: it may be of another partition or broker.
    pub(super) fn answers(&self) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.is_empty() {
            return;
        }
        trouble.retain(|_, last| last.elapsed() < TROUBLE_LASTS);
        if trouble.is_empty() {
            tracing::info!(client = self.role, "Kafka answers again");
        }
    }

    /// The first delivery that failed since the last call, with the record's key.
    pub(super) fn take_failed_delivery(&self) -> Option<(KafkaError, String)> {
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

/// Whether librdkafka speaks of a producer that a newer one has taken over from: an ordinary end, and whoever publishes is
/// told. It says so once as the transaction's failure, and once as the client's.
fn is_takeover(text: &str) -> bool {
    TAKEOVERS.iter().any(|code| {
        // `Fenced (Local: This instance ...)`
        let name_and_text = code.to_string();
        let own_text = name_and_text.split_once(" (").and_then(|(_name, text)| text.strip_suffix(')'));
        own_text.is_some_and(|own_text| text.contains(own_text))
    })
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            _ if is_takeover(message) => {
                tracing::debug!(client = self.role, facility, "{message}")
            }
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(client = self.role, facility, "{message}");
            }
            // What matters of the rest comes as an error too; these lines come with every attempt to connect.
            _ => tracing::debug!(client = self.role, facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if is_takeover(&error.to_string()) || is_takeover(reason) {
            return;
        }
        if matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL)) {
            *self.insecurity.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
        self.note_trouble(&error, reason);
    }
}

impl ConsumerContext for Events {}

impl ProducerContext for Events {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Err((error, message)) => {
                let key = || String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
                let mut failed = self.failed_delivery.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert_with(|| (error.clone(), key()));
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
    let extra = settings.extra.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let tuned = TUNING.into_iter().chain(tuning.iter().copied());
    // Brokers that create topics on demand would create a deleted one with their defaults. A producer asks for it unless told not to.
    let common = [("bootstrap.servers", settings.brokers.as_str()), ("allow.auto.create.topics", "false")];
    let fixed = common.into_iter().chain(fixed.iter().copied());
    for (name, value) in tuned.chain(extra).chain(fixed) {
        config.set(canonical(name), value);
    }
    if config.get("debug").is_some() {
        config.set_log_level(RDKafkaLogLevel::Debug);
    }
    config.create_with_context(Events::new(role)).map_err(|error| creation_error(&settings.extra, &error))
}

/// Hears what a client that is never polled was told since the last time, so that it does not pile up.
pub(super) fn drain_events(client: &BaseConsumer<Events>) {
    for _ in 0..EVENTS_DROPPED_A_CALL {
        if client.poll(DRAIN_TIME).is_none() {
            return;
        }
    }
}

/// What the brokers know of the topic. An error says why they do not let us in, if that is it: librdkafka's own says no more
/// than that they are not there.
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
    let mut insecurity = client.context().insecurity.lock().unwrap_or_else(PoisonError::into_inner);
    fetched.inspect(|_| *insecurity = None).map_err(|error| match (log_error(doing, &error), &*insecurity) {
        (LogError::Unavailable(text), Some(reason)) => LogError::Unavailable(format!("{text}: {reason}")),
        (error, _) => error,
    })
}

/// How many partitions the topic has.
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

/// Where a partition begins and ends now.
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

/// What is left until `deadline`; at least a millisecond, as nothing at all means for ever to some of librdkafka's calls.
pub(super) fn time_left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// What an error of Kafka's means to a user of the log.
pub(super) fn log_error(doing: &str, error: &KafkaError) -> LogError {
    use RDKafkaErrorCode as Code;
    let text = format!("{doing}: {error}");
    match error.rdkafka_error_code() {
        Some(code) if TAKEOVERS.contains(&code) => LogError::Fenced(text),
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

/// An error of the producer's. Once a newer publisher is open, every one means that this one is fenced, whatever it says.
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
    fn a_takeover_is_told_from_what_is_really_fatal() {
        for takeover in [
            "[thrd:main]: Fatal error: Local: This instance has been fenced by a newer instance: Failed to add offsets",
            "[thrd:main]: Fatal transaction error: Failed: Local: This instance has been fenced by a newer instance (_FENCED)",
            "Fatal error: Broker: Producer attempted an operation with an old epoch: Failed to end transaction",
            &KafkaError::Global(RDKafkaErrorCode::Fenced).to_string(),
        ] {
            assert!(is_takeover(takeover), "{takeover}");
        }
        for fatal in [
            "[thrd:main]: Fatal error: Broker: Broker received an out of order sequence number: Failed to send",
            &KafkaError::Global(RDKafkaErrorCode::Fatal).to_string(),
        ] {
            assert!(!is_takeover(fatal), "{fatal}");
        }
    }
}
