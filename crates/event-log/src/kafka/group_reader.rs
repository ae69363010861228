//! Reading as a member of a consumer group.
//!
//! A record's offset is stored for the next commit once the record has been handed over, never before: what a crash or a
//! rebalance interrupts is handed out again.

use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use super::KafkaSettings;
use super::client::{Events, create, log_error};
use super::reader::{CONSUMER_TUNING, as_record, take};
use crate::{GroupReader, LogError, RecordRef};

/// How many records one poll hands over at most. They are what a crash makes the group do again.
const BATCH_RECORDS: usize = 1_024;
/// A member that was killed is missed, and its partitions go to the others, after this time. A commit also waits no
/// longer than this for a group that has no coordinator.
const SESSION_TIMEOUT_MS: &str = "10000";
/// How long one request, a commit for example, may take.
const REQUEST_TIMEOUT_MS: &str = "10000";

pub(super) struct KafkaGroupReader {
    consumer: BaseConsumer<Events>,
}

impl KafkaGroupReader {
    pub(super) fn open(settings: &KafkaSettings, group: &str) -> Result<KafkaGroupReader, LogError> {
        let consumer = consumer(settings, group)?;
        consumer.subscribe(&[&settings.topic]).map_err(|error| log_error("joining the group", &error))?;
        Ok(KafkaGroupReader { consumer })
    }
}

/// The consumer of a member of `group` that has not joined it yet.
pub(super) fn consumer(settings: &KafkaSettings, group: &str) -> Result<BaseConsumer<Events>, LogError> {
    let mut tuning = CONSUMER_TUNING.to_vec();
    tuning.extend([("session.timeout.ms", SESSION_TIMEOUT_MS), ("socket.timeout.ms", REQUEST_TIMEOUT_MS)]);
    let fixed = [
        ("group.id", group),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "earliest"),
        ("isolation.level", "read_uncommitted"),
    ];
    create(settings, "group reader", &tuning, &fixed)
}

impl GroupReader for KafkaGroupReader {
    fn poll(&mut self, timeout: Duration, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError> {
        let consumer = &self.consumer;
        take(consumer, timeout, BATCH_RECORDS, &mut |message| {
            apply(as_record(message));
            // Refused when the partition has just been taken away: its next owner gets the record again.
            if let Err(error) = consumer.store_offset_from_message(message) {
                tracing::debug!(%error, partition = message.partition(), "an offset was not stored");
            }
        })
    }

    fn commit(&mut self) -> Result<(), LogError> {
        use RDKafkaErrorCode as Code;
        let Err(error) = self.consumer.commit_consumer_state(CommitMode::Sync) else { return Ok(()) };
        match error.rdkafka_error_code() {
            // There is nothing new to commit.
            Some(Code::NoOffset) => Ok(()),
            // The group has changed under this member. What it polled is handed out again, to it or another.
            Some(
                Code::RebalanceInProgress
                | Code::IllegalGeneration
                | Code::UnknownMemberId
                | Code::AssignmentLost
                | Code::State,
            ) => Ok(()),
            _ => Err(log_error("committing the group's positions", &error)),
        }
    }
}
