//! Making the topic, and looking at one that is there.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::KafkaSettings;
use super::client::{Events, create, fetch_topic, partition_count, time_left};
use crate::{DEFAULT_PARTITION_COUNT, LogError};

/// As many replicas as the brokers make by default.
const BROKERS_DEFAULT: i32 = -1;
/// How long to wait before looking again whether a topic just made is known to all brokers.
const LOOK_AGAIN_PAUSE: Duration = Duration::from_millis(20);

/// What the brokers may compress a topic with that every build of ours reads (`producer` and `uncompressed` included).
const READABLE: [&str; 7] = ["producer", "uncompressed", "none", "gzip", "snappy", "lz4", "zstd"];
/// Below so many bytes a topic may refuse a single event: the largest one has about a kilobyte, headers included.
const MIN_MESSAGE_BYTES: u64 = 4_096;

/// Makes the topic if it is missing: compacted, with [`DEFAULT_PARTITION_COUNT`] partitions and the brokers' default
/// replication.
pub(super) fn make_if_missing(
    settings: &KafkaSettings,
    client: &BaseConsumer<Events>,
    deadline: Instant,
) -> Result<(), LogError> {
    let topic = &settings.topic;
    if !is_missing(client, topic, deadline)? {
        return Ok(());
    }
    let admin: AdminClient<Events> = create(settings, "topic", &[], &[])?;
    make(&admin, topic, deadline).map_err(|error| {
        LogError::Refused(format!(
            "topic {topic} does not exist and cannot be made ({error}): nothing is published or read until somebody makes \
             it, with cleanup.policy=compact"
        ))
    })?;
    wait_until_known(client, topic, deadline)
}

/// Whether the brokers know of no such topic. Where something else is wrong with it, it is there.
pub(super) fn is_missing(client: &BaseConsumer<Events>, topic: &str, deadline: Instant) -> Result<bool, LogError> {
    let metadata = fetch_topic(client, topic, "asking for the topic", deadline)?;
    Ok(metadata.topics().iter().filter(|found| found.name() == topic).all(|found| {
        found.partitions().is_empty()
            && found
                .error()
                .is_none_or(|error| RDKafkaErrorCode::from(error) == RDKafkaErrorCode::UnknownTopicOrPartition)
    }))
}

fn make(admin: &AdminClient<Events>, topic: &str, deadline: Instant) -> Result<(), KafkaError> {
    let new = NewTopic::new(topic, DEFAULT_PARTITION_COUNT as i32, TopicReplication::Fixed(BROKERS_DEFAULT))
        .set("cleanup.policy", "compact");
    let results = wait_for(admin.create_topics([&new], &options(deadline)), deadline)?;
    match results.into_iter().next() {
        None | Some(Ok(_)) => Ok(()),
        // Another instance was faster.
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(KafkaError::AdminOp(code)),
    }
}

/// The brokers hear of a new topic one after the other.
fn wait_until_known(client: &BaseConsumer<Events>, topic: &str, deadline: Instant) -> Result<(), LogError> {
    loop {
        match partition_count(client, topic, deadline) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => thread::park_timeout(LOOK_AGAIN_PAUSE),
        }
    }
}

/// The topic's settings, as far as they matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TopicSettings {
    pub(super) cleanup_policy: String,
    pub(super) compression: String,
    pub(super) max_message_bytes: Option<u64>,
}

/// Asks for the topic's settings. The error is a line that says what may go wrong unseen.
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
    let described = wait_for(admin.describe_configs([&resource], &options(deadline)), deadline).and_then(|results| {
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
    /// What is wrong with them, each as one line that says what will go wrong.
    pub(super) fn problems(&self, topic: &str) -> Vec<String> {
        let policy = match self.cleanup_policy.as_str() {
            "compact" => None,
            deletes if deletes.contains("delete") => Some(format!(
                "topic {topic} has cleanup.policy={deletes}: events older than its retention vanish, and a view that is \
                 rebuilt then lacks the accounts that have not changed since"
            )),
            policy => Some(format!(
                "topic {topic} has cleanup.policy={policy:?}: it is not compacted, so it grows for ever, and each rebuild of \
                 a view takes longer than the last"
            )),
        };
        let compression = self.compression.as_str();
        let compression = (!READABLE.contains(&compression)).then(|| {
            format!("topic {topic} has compression.type={compression}: card services may be unable to read its records")
        });
        let small = self.max_message_bytes.filter(|bytes| *bytes < MIN_MESSAGE_BYTES).map(|bytes| {
            format!(
                "topic {topic} has max.message.bytes={bytes}: it may refuse an event, and all events behind it wait"
            )
        });
        policy.into_iter().chain(compression).chain(small).collect()
    }
}

fn options(deadline: Instant) -> AdminOptions {
    AdminOptions::new().request_timeout(Some(time_left(deadline))).operation_timeout(Some(time_left(deadline)))
}

/// Waits for one of the admin client's answers, which come as futures, on this thread.
fn wait_for<T>(answer: impl Future<Output = Result<T, KafkaError>>, deadline: Instant) -> Result<T, KafkaError> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut answer = pin!(answer);
    loop {
        if let Poll::Ready(result) = answer.as_mut().poll(&mut context) {
            return result;
        }
        if Instant::now() >= deadline {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut));
        }
        thread::park_timeout(time_left(deadline));
    }
}
