//! What is known of the topic, and the thread that reads its settings: at the start, each minute, and when a client has lost the
//! topic. Each problem is logged when it appears and when it is gone. The thread changes nothing, because a harmful setting may be an
//! operator's choice.
//!
//! The size of the publisher's batches is here too. Brokers refuse a batch that is larger than the topic's `max.message.bytes`, or
//! that contains a record which they refuse. So batches are as large as the topic's settings allow, and smaller after each refusal,
//! down to one record. A record that is refused alone cannot be left out (ARCHITECTURE.md A3): it is named and retried.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::RDKafkaErrorCode;

use super::KafkaSettings;
use super::client::{Events, partition_count};
use super::properties::canonical;
use super::topic::{self, TopicSettings};
use crate::deadline;

/// How often the settings are read. Each time takes a connection.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// The pause before a requested check: each of many failures may request one.
const CHECK_PAUSE: Duration = Duration::from_secs(2);
/// How long the brokers may take to return the settings. Brokers that reject the client never answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// librdkafka's default for the size of a batch.
const DEFAULT_BATCH_BYTES: u64 = 1_000_000;
/// The size of a batch of one record: librdkafka adds the first record whatever its size.
const ONE_RECORD: u64 = 1;
/// The divisor of the batch size after a refusal. Five refusals, a few seconds, lead to batches of one record.
const SHRINK_BY: u64 = 16;
/// How long new publishers keep to the size after a refusal.
const REFUSAL_VALID_FOR: Duration = Duration::from_secs(60);
/// The refusals that a smaller batch may avoid.
const REFUSALS: [RDKafkaErrorCode; 4] = [
    RDKafkaErrorCode::MessageSizeTooLarge,
    RDKafkaErrorCode::MessageBatchTooLarge,
    RDKafkaErrorCode::InvalidRecord,
    RDKafkaErrorCode::InvalidMessage,
];

/// What is known of the topic.
pub(super) struct TopicState {
    /// The operator's limit of a batch, or librdkafka's.
    batch_limit: u64,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    settings: Option<TopicSettings>,
    problems: Vec<String>,
    /// The batch size after the last refusal, and the time of the refusal.
    refused: Option<(u64, Instant)>,
}

impl TopicState {
    pub(super) fn new(settings: &KafkaSettings) -> TopicState {
        let set = settings.extra.iter().find(|(name, _)| canonical(name) == "batch.size");
        let batch_limit = set.and_then(|(_, value)| value.parse().ok()).unwrap_or(DEFAULT_BATCH_BYTES);
        TopicState { batch_limit, known: Mutex::default() }
    }

    /// The problems of the topic's settings.
    pub(super) fn problems(&self) -> Vec<String> {
        self.known.lock().problems.clone()
    }

    /// Whether the topic is known to remove only records that a newer record of the same key replaces.
    pub(super) fn is_compacted(&self) -> bool {
        self.known.lock().settings.as_ref().is_some_and(|settings| settings.cleanup_policy == "compact")
    }

    /// The size of the next publisher's batches in bytes.
    pub(super) fn batch_bytes(&self) -> u64 {
        let known = self.known.lock();
        let of_topic = known.settings.as_ref().and_then(|settings| settings.max_message_bytes);
        let refused = known.refused.filter(|(_, at)| at.elapsed() < REFUSAL_VALID_FOR).map(|(bytes, _)| bytes);
        [of_topic, refused].into_iter().flatten().fold(self.batch_limit, u64::min).max(ONE_RECORD)
    }

    /// Records that a batch of up to `bytes` was refused. Returns whether smaller batches can be tried.
    pub(super) fn record_refusal(&self, bytes: u64) -> bool {
        self.known.lock().refused = Some(((bytes / SHRINK_BY).max(ONE_RECORD), Instant::now()));
        bytes > ONE_RECORD
    }

    fn report(&self, found: Vec<String>) {
        let problems = &mut self.known.lock().problems;
        found.iter().filter(|problem| !problems.contains(problem)).for_each(|problem| tracing::warn!("{problem}"));
        for gone in problems.iter().filter(|problem| !found.contains(problem)) {
            tracing::info!(problem = gone, "a problem with the topic's settings is gone");
        }
        *problems = found;
    }
}

/// Whether the brokers refused a batch for its size or for one of its records.
pub(super) fn is_refusal(code: Option<RDKafkaErrorCode>) -> bool {
    code.is_some_and(|code| REFUSALS.contains(&code))
}

/// The running thread. It ends when this is dropped.
pub(super) struct TopicWatch(SyncSender<()>);

impl TopicWatch {
    pub(super) fn start(
        settings: KafkaSettings,
        client: Arc<BaseConsumer<Events>>,
        state: Arc<TopicState>,
    ) -> std::io::Result<TopicWatch> {
        let (sender, requests) = sync_channel(1);
        Builder::new().name("topic-watch".to_owned()).spawn(move || watch(&settings, &client, &state, &requests))?;
        Ok(TopicWatch(sender))
    }

    /// Requests a check now.
    pub(super) fn request_check(&self) {
        // If the channel is full, a check is already requested.
        let _ = self.0.try_send(());
    }
}

fn watch(settings: &KafkaSettings, client: &BaseConsumer<Events>, state: &TopicState, requests: &Receiver<()>) {
    let (mut is_first, mut partitions) = (true, None);
    loop {
        match topic::settings(settings, deadline(CHECK_TIMEOUT)) {
            Ok(found) => {
                state.report(found.problems(&settings.topic));
                state.known.lock().settings = Some(found);
            }
            Err(problem) if is_first => state.report(vec![problem]),
            // An outage says nothing about the settings.
            Err(_) => {}
        }
        is_first = false;
        if let Ok(count) = partition_count(client, &settings.topic, deadline(CHECK_TIMEOUT))
            && let Some(previous) = partitions.replace(count)
            && previous != count
        {
            tracing::warn!(
                "topic {} has {count} partitions and had {previous}: later events of an account may be in another partition \
                 than the earlier ones, and their versions decide which counts",
                settings.topic
            );
        }
        match requests.recv_timeout(CHECK_INTERVAL) {
            Ok(()) => thread::sleep(CHECK_PAUSE),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
