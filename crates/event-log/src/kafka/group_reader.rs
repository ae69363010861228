//! Reading as a member of a consumer group.
//!
//! What is committed is how far librdkafka has handed over, which is behind the markers of transactions too, and only once
//! the caller has said that all of it has taken effect: what a crash or a rebalance interrupts is handed out again. A
//! marker comes after the commit of the record before it, for this reader does not wait for a transaction's end. So the
//! group's position is moved behind markers alone when nothing else comes, or its lag would never be 0.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};

use super::KafkaSettings;
use super::client::{Events, create, log_error};
use super::reader::{CONSUMER_TUNING, poll};
use crate::{GroupReader, LogError, Positions, RecordRef};

/// How many records one poll hands over at most. They are what a crash makes the group do again.
const BATCH_RECORDS: usize = 1_024;
/// A member that was killed is missed, and its partitions go to the others, after this time. A commit also waits no
/// longer than this for a group that has no coordinator.
const SESSION_TIMEOUT_MS: &str = "10000";
/// How long one request, a commit for example, may take.
const REQUEST_TIMEOUT_MS: &str = "10000";
/// The brokers answer a fetch once there are so many bytes, or after this time: nobody waits for whoever reads as one of a group,
/// and a fetch for each record would cost the brokers as much as taking it in. A lone record is late by no more than the
/// transaction that it came in.
const FETCH_MIN_BYTES: &str = "100000";
const FETCH_WAIT_MAX_MS: &str = "100";
/// How often the topic is asked for new partitions, whose records would wait for a member until then.
const METADATA_REFRESH_MS: &str = "3000";

pub(super) struct KafkaGroupReader {
    consumer: BaseConsumer<Events>,
    /// Whether records were handed over since the caller's last commit. While they are, only the caller may commit.
    handed_over: bool,
    /// The positions as they were last committed.
    committed: Positions,
}

impl KafkaGroupReader {
    pub(super) fn open(settings: &KafkaSettings, group: &str) -> Result<KafkaGroupReader, LogError> {
        let consumer = consumer(settings, group)?;
        consumer.subscribe(&[&settings.topic]).map_err(|error| log_error("joining the group", &error))?;
        Ok(KafkaGroupReader { consumer, handed_over: false, committed: Positions::new() })
    }

    /// Commits where this member stands in the partitions it holds. Those it has read nothing of yet are left out.
    fn commit_positions(&mut self) -> KafkaResult<()> {
        let positions = self.consumer.position()?;
        self.consumer.commit(&positions, CommitMode::Sync)?;
        self.committed = known(&positions);
        Ok(())
    }

    /// Commits the markers that came behind what the caller has committed. It keeps nobody waiting: if it fails, the next
    /// commit makes up for it.
    fn commit_markers(&mut self) {
        let Ok(positions) = self.consumer.position() else { return };
        let reached = known(&positions);
        if reached.is_empty() || reached == self.committed {
            return;
        }
        if let Err(error) = self.consumer.commit(&positions, CommitMode::Async) {
            tracing::debug!(%error, "the group's position was not moved behind markers");
        }
        self.committed = reached;
    }
}

/// The positions that there are. As values: a list of librdkafka's own would keep the consumer from being closed.
fn known(positions: &TopicPartitionList) -> Positions {
    let position = |element: TopicPartitionListElem<'_>| match element.offset() {
        Offset::Offset(offset) => Some((element.partition() as u32, offset as u64)),
        _none => None,
    };
    positions.elements().into_iter().filter_map(position).collect()
}

/// The consumer of a member of `group` that has not joined it yet.
pub(super) fn consumer(settings: &KafkaSettings, group: &str) -> Result<BaseConsumer<Events>, LogError> {
    let mut tuning = CONSUMER_TUNING.to_vec();
    tuning.extend([
        ("session.timeout.ms", SESSION_TIMEOUT_MS),
        ("socket.timeout.ms", REQUEST_TIMEOUT_MS),
        ("fetch.min.bytes", FETCH_MIN_BYTES),
        ("fetch.wait.max.ms", FETCH_WAIT_MAX_MS),
        ("topic.metadata.refresh.interval.ms", METADATA_REFRESH_MS),
    ]);
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
        let count = poll(&self.consumer, timeout, BATCH_RECORDS, &mut |record| {
            // Even if this poll fails further on.
            self.handed_over = true;
            apply(record);
        })?;
        if !self.handed_over {
            self.commit_markers();
        }
        Ok(count)
    }

    fn commit(&mut self) -> Result<(), LogError> {
        use RDKafkaErrorCode as Code;
        self.handed_over = false;
        let Err(error) = self.commit_positions() else { return Ok(()) };
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
