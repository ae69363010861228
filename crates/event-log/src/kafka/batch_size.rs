//! How large the publisher's batches may be.
//!
//! Brokers refuse a whole batch that is larger than the topic's `max.message.bytes`, or that has a record which they do not take.
//! So batches are as large as the topic allows where its settings can be read, and smaller after each refusal, down to one record.
//! A record that is refused alone cannot be left out (ARCHITECTURE.md A3): it is named, and tried again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

use super::KafkaSettings;
use super::properties::canonical;
use super::topic_watch::TopicState;

/// librdkafka's own limit where an operator sets none, in bytes.
const DEFAULT_BYTES: u64 = 1_000_000;
/// A batch of so many bytes has one record: librdkafka adds the first one whatever its size.
const ONE_RECORD: u64 = 1;
/// By how much a batch is smaller after a refusal. It takes five refusals, a few seconds, until a batch has one record.
const SHRINK_BY: u64 = 16;
/// How long after a refusal a publisher that is opened tries no larger batches.
const REMEMBERED: Duration = Duration::from_secs(60);
/// What a smaller batch may mend.
const REFUSALS: [RDKafkaErrorCode; 4] = [
    RDKafkaErrorCode::MessageSizeTooLarge,
    RDKafkaErrorCode::MessageBatchTooLarge,
    RDKafkaErrorCode::InvalidRecord,
    RDKafkaErrorCode::InvalidMessage,
];

pub(super) struct BatchSize {
    /// The operator's limit, or librdkafka's.
    largest: u64,
    state: Arc<TopicState>,
    /// What was left to try after the last refusal, and when that was.
    refused: Mutex<Option<(u64, Instant)>>,
}

impl BatchSize {
    pub(super) fn new(settings: &KafkaSettings, state: Arc<TopicState>) -> BatchSize {
        let set = settings.extra.iter().find(|(name, _)| canonical(name) == "batch.size");
        let largest = set.and_then(|(_, value)| value.parse().ok()).unwrap_or(DEFAULT_BYTES);
        BatchSize { largest, state, refused: Mutex::default() }
    }

    /// How many bytes a batch of the next publisher may have.
    pub(super) fn bytes(&self) -> u64 {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let left = refused.filter(|(_, at)| at.elapsed() < REMEMBERED).map_or(self.largest, |(left, _)| left);
        self.state.max_message_bytes().unwrap_or(u64::MAX).min(self.largest).min(left).max(ONE_RECORD)
    }

    /// Whether the topic is known to delete nothing by itself but what a newer record of the same key replaces.
    pub(super) fn is_compacted(&self) -> bool {
        self.state.is_compacted()
    }

    /// Whether it is for a batch, or a record in it, that the brokers refused it.
    pub(super) fn is_refusal(code: Option<RDKafkaErrorCode>) -> bool {
        code.is_some_and(|code| REFUSALS.contains(&code))
    }

    /// Notes that one of up to `bytes` was refused. Returns whether it had several records, so that smaller ones can be tried.
    pub(super) fn refuse(&self, bytes: u64) -> bool {
        let left = (bytes / SHRINK_BY).max(ONE_RECORD);
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some((left, Instant::now()));
        bytes > ONE_RECORD
    }
}
