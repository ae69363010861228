//! Creating the topic, and reading its settings.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::KafkaSettings;
use super::client::{Events, create, fetch_topic, partition_count, time_left};
use crate::{DEFAULT_PARTITION_COUNT, LogError};

/// The brokers' default replication factor.
const BROKERS_DEFAULT: i32 = -1;
/// The pause between checks whether all brokers know a new topic.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// The compression types that every build of ours can read (`producer` and `uncompressed` included).
const READABLE: [&str; 7] = ["producer", "uncompressed", "none", "gzip", "snappy", "lz4", "zstd"];
/// A topic with a smaller `max.message.bytes` may refuse a single event: the largest one takes about a kilobyte.
const MIN_MESSAGE_BYTES: u64 = 4_096;

/// Creates the topic if it is missing: compacted, with [`DEFAULT_PARTITION_COUNT`] partitions and the brokers' default replication.
pub(super) fn create_if_missing(
    settings: &KafkaSettings,
    client: &BaseConsumer<Events>,
    deadline: Instant,
) -> Result<(), LogError> {
    let topic = &settings.topic;
    if !is_missing(client, topic, deadline)? {
        return Ok(());
    }
    let admin: AdminClient<Events> = create(settings, "topic", &[], &[])?;
    create_topic(&admin, topic, deadline).map_err(|error| {
        LogError::Refused(format!(
            "topic {topic} does not exist and cannot be created ({error}): nothing is published or read until you create \
             it, with cleanup.policy=compact"
        ))
    })?;
    // Each broker learns of the topic at its own time.
    loop {
        match partition_count(client, topic, deadline) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => thread::park_timeout(RETRY_PAUSE),
        }
    }
}

/// Whether the brokers do not know the topic. A topic with another error exists.
pub(super) fn is_missing(client: &BaseConsumer<Events>, topic: &str, deadline: Instant) -> Result<bool, LogError> {
    let metadata = fetch_topic(client, topic, "asking for the topic", deadline)?;
    Ok(metadata.topics().iter().filter(|found| found.name() == topic).all(|found| {
        found.partitions().is_empty()
            && found
                .error()
                .is_none_or(|error| RDKafkaErrorCode::from(error) == RDKafkaErrorCode::UnknownTopicOrPartition)
    }))
}

fn create_topic(admin: &AdminClient<Events>, topic: &str, deadline: Instant) -> Result<(), KafkaError> {
    let new = NewTopic::new(topic, DEFAULT_PARTITION_COUNT as i32, TopicReplication::Fixed(BROKERS_DEFAULT))
        .set("cleanup.policy", "compact");
    let results = pollster::block_on(admin.create_topics([&new], &options(deadline)))?;
    match results.into_iter().next() {
        // Another instance may have created it first.
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(KafkaError::AdminOp(code)),
    }
}

/// The topic's settings, as far as they matter here.
pub(super) struct TopicSettings {
    pub(super) cleanup_policy: String,
    compression: String,
    pub(super) max_message_bytes: Option<u64>,
}

/// Reads the topic's settings. The error is a line for operators that says what may go wrong unnoticed.
pub(super) fn settings(settings: &KafkaSettings, deadline: Instant) -> Result<TopicSettings, String> {
    let topic = &settings.topic;
    let unreadable = |error: &dyn std::fmt::Display| {
        format!(
            "the settings of topic {topic} cannot be read ({error}): if its cleanup.policy is not compact, events of \
             old accounts vanish, and a view that is rebuilt lacks those accounts"
        )
    };
    let admin: AdminClient<Events> = create(settings, "topic", &[], &[]).map_err(|error| unreadable(&error))?;
    let resource = ResourceSpecifier::Topic(topic);
    let described = pollster::block_on(admin.describe_configs([&resource], &options(deadline))).and_then(|results| {
        let result = results.into_iter().next().unwrap_or(Err(RDKafkaErrorCode::Fail));
        result.map_err(KafkaError::AdminOp)
    });
    let described = described.map_err(|error| unreadable(&error))?;
    let value = |name| described.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default();
    Ok(TopicSettings {
        cleanup_policy: value("cleanup.policy"),
        compression: value("compression.type"),
        max_message_bytes: value("max.message.bytes").parse().ok(),
    })
}

impl TopicSettings {
    /// The problems of the settings, each as one line that says what will go wrong.
    pub(super) fn problems(&self, topic: &str) -> Vec<String> {
        let policy = match self.cleanup_policy.as_str() {
            "compact" => None,
            deletes if deletes.contains("delete") => Some(format!(
                "topic {topic} has cleanup.policy={deletes}: events older than its retention vanish, and a view that is \
                 rebuilt then lacks the accounts that have not changed since"
            )),
            policy => Some(format!(
                "topic {topic} has cleanup.policy={policy:?}: it is not compacted, so it grows without limit, and each rebuild of \
                 a view takes longer than the last"
            )),
        };
        let compression = self.compression.as_str();
        let compression = (!READABLE.contains(&compression)).then(|| {
            format!("topic {topic} has compression.type={compression}: card services may be unable to read its records")
        });
        let small = self.max_message_bytes.filter(|bytes| *bytes < MIN_MESSAGE_BYTES).map(|bytes| {
            format!("topic {topic} has max.message.bytes={bytes}: it may refuse an event, and all later events wait")
        });
        policy.into_iter().chain(compression).chain(small).collect()
    }
}

/// librdkafka ends the operation at `deadline`, so waiting for its future is bounded.
fn options(deadline: Instant) -> AdminOptions {
    AdminOptions::new().request_timeout(Some(time_left(deadline))).operation_timeout(Some(time_left(deadline)))
}
