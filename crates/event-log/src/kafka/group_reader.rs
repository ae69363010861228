//! Reading as a member of a consumer group.
//!
//! A commit stores librdkafka's positions, which are after transaction markers, and only when the caller says that all records have
//! taken effect: the group reads records again that a crash or a rebalance interrupts. Markers arrive after the commit of the last
//! record, because this reader does not wait for the end of a transaction. So an idle reader commits positions after markers by
//! itself; otherwise the group's lag would never be 0.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};

use super::KafkaSettings;
use super::client::{Events, create, log_error};
use super::reader::{CONSUMER_TUNING, poll};
use crate::{GroupReader, LogError, Positions, RecordRef};

/// The most records of one poll, which the group reads again after a crash.
const BATCH_RECORDS: usize = 1_024;
/// When the partitions of a killed member go to others. It also limits how long a commit waits for a coordinator.
const SESSION_TIMEOUT_MS: &str = "10000";
/// How long a request may take.
const REQUEST_TIMEOUT_MS: &str = "10000";
/// The brokers answer a fetch once they have this many bytes, or after this time. No request waits for a group reader, and a fetch for
/// each record would cost the brokers as much as its publishing.
const FETCH_MIN_BYTES: &str = "100000";
const FETCH_WAIT_MAX_MS: &str = "100";
/// How soon the group reads a new partition.
const METADATA_REFRESH_MS: &str = "3000";

pub(super) struct KafkaGroupReader {
    consumer: BaseConsumer<Events>,
    /// Whether records were polled since the caller's last commit. If so, only the caller may commit.
    has_uncommitted: bool,
    /// The positions of the last commit.
    committed: Positions,
}

impl KafkaGroupReader {
    pub(super) fn open(settings: &KafkaSettings, group: &str) -> Result<KafkaGroupReader, LogError> {
        let consumer = consumer(settings, group)?;
        consumer.subscribe(&[&settings.topic]).map_err(|error| log_error("joining the group", &error))?;
        Ok(KafkaGroupReader { consumer, has_uncommitted: false, committed: Positions::new() })
    }

    /// Commits the positions of this member's partitions, except those that it has not read yet.
    fn commit_positions(&mut self) -> KafkaResult<()> {
        let positions = self.consumer.position()?;
        self.consumer.commit(&positions, CommitMode::Sync)?;
        self.committed = known(&positions);
        Ok(())
    }

    /// Commits positions after the markers that follow the caller's last commit. Does not wait; the next commit makes up for a failure.
    fn commit_markers(&mut self) {
        let Ok(positions) = self.consumer.position() else { return };
        let reached = known(&positions);
        if reached.is_empty() || reached == self.committed {
            return;
        }
        if let Err(error) = self.consumer.commit(&positions, CommitMode::Async) {
            tracing::debug!(%error, "the group's position after markers was not committed");
        }
        self.committed = reached;
    }
}

/// The known positions, as values: librdkafka's own list would keep the consumer from being closed.
fn known(positions: &TopicPartitionList) -> Positions {
    let position = |element: TopicPartitionListElem<'_>| match element.offset() {
        Offset::Offset(offset) => Some((element.partition() as u32, offset as u64)),
        _ => None,
    };
    positions.elements().into_iter().filter_map(position).collect()
}

/// Creates the consumer of a member of `group`, which joins when it subscribes.
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
            // Here, because the poll may fail after this record.
            self.has_uncommitted = true;
            apply(record);
        })?;
        if !self.has_uncommitted {
            self.commit_markers();
        }
        Ok(count)
    }

    fn commit(&mut self) -> Result<(), LogError> {
        use RDKafkaErrorCode as Code;
        self.has_uncommitted = false;
        let Err(error) = self.commit_positions() else { return Ok(()) };
        match error.rdkafka_error_code() {
            // There is nothing new to commit.
            Some(Code::NoOffset) => Ok(()),
            // The group has changed meanwhile, and its members read the records again.
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
