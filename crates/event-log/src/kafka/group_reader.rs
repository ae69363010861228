//! Reading as a member of a consumer group.
//!
//! A commit stores librdkafka's positions, which are after transaction markers, and only when the caller says that all records have
//! taken effect: the group reads records again that a crash or a rebalance interrupts. Markers arrive after the commit of the last
//! record, because this reader does not wait for the end of a transaction. So an idle reader commits positions after markers by
//! itself; otherwise the group's lag would never be 0.
//!
//! A batch that cannot be decoded is skipped as in [`reader`](super::reader). The consumer's error does not name the partition, so from
//! the first such error on the queue of each partition is polled by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};

use super::KafkaSettings;
use super::client::{Events, create, log_error, watermarks};
use super::message::ReadError;
use super::reader::{CONSUMER_TUNING, SEEK_TIMEOUT, check_error};
use super::troubles::Troubles;
use crate::{GroupReader, LogError, Positions, RecordRef, deadline};

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
/// How often the queues of the partitions are polled, if each is polled by itself.
const PARTITION_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long the brokers may take to say where a partition is read.
const POSITION_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct KafkaGroupReader {
    consumer: Arc<BaseConsumer<Events>>,
    topic: String,
    /// The offset after the last record that was read of each partition, or to which the reader has skipped.
    next: Positions,
    troubles: Troubles,
    /// Whether each partition is polled by itself.
    is_split: bool,
    /// Whether records were polled since the caller's last commit. If so, only the caller may commit.
    has_uncommitted: bool,
    /// The positions of the last commit.
    committed: Positions,
}

impl KafkaGroupReader {
    pub(super) fn open(settings: &KafkaSettings, group: &str) -> Result<KafkaGroupReader, LogError> {
        let consumer = consumer(settings, group)?;
        consumer.subscribe(&[&settings.topic]).map_err(|error| log_error("joining the group", &error))?;
        Ok(KafkaGroupReader {
            consumer: Arc::new(consumer),
            topic: settings.topic.clone(),
            next: Positions::new(),
            troubles: Troubles::default(),
            is_split: false,
            has_uncommitted: false,
            committed: Positions::new(),
        })
    }

    /// Commits the positions of this member's partitions, except those that it has not read yet. Does nothing if they are committed.
    fn commit_positions(&mut self, mode: CommitMode) -> KafkaResult<()> {
        let mut reached = known(&self.consumer.position()?);
        // An error of a batch that cannot be decoded moves librdkafka's position.
        reached.retain(|partition, _| !self.troubles.is_unreadable_at(*partition));
        reached.extend(self.next.iter().filter(|(partition, _)| self.troubles.is_unreadable_at(**partition)));
        if reached.is_empty() || reached == self.committed {
            return Ok(());
        }
        let mut positions = TopicPartitionList::new();
        for (partition, offset) in &reached {
            positions.add_partition_offset(&self.topic, *partition as i32, Offset::Offset(*offset as i64))?;
        }
        self.consumer.commit(&positions, mode)?;
        self.committed = reached;
        Ok(())
    }

    /// Takes a record, or the error that came in its place: of `partition`, if it is known. Returns the number of records.
    fn take(
        &mut self,
        polled: KafkaResult<BorrowedMessage<'_>>,
        partition: Option<u32>,
        apply: &mut dyn FnMut(RecordRef<'_>),
    ) -> Result<usize, LogError> {
        let error = match polled {
            Ok(message) => {
                let record = RecordRef::from(&message);
                // Here, because the poll may fail after this record.
                self.has_uncommitted = true;
                self.next.insert(record.partition, record.offset + 1);
                self.troubles.record_read(record.partition, record.offset);
                apply(record);
                return Ok(1);
            }
            Err(error) => ReadError { error, partition, offset: None, text: String::new() },
        };
        if !Troubles::is_unreadable(&error) {
            return check_error(&self.consumer, &error.error).map(|()| 0);
        }
        self.is_split = true;
        if let Some(partition) = partition {
            let position = self.position(partition)?;
            self.next.insert(partition, position);
            self.troubles.record_error(partition, position, &error);
        }
        Ok(0)
    }

    /// Where this member reads `partition`: after its last record, or at the group's position, or at the start.
    fn position(&self, partition: u32) -> Result<u64, LogError> {
        if let Some(next) = self.next.get(&partition) {
            return Ok(*next);
        }
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&self.topic, partition as i32);
        let committed = self.consumer.committed_offsets(asked, POSITION_TIMEOUT);
        let committed = committed.map_err(|error| log_error("asking for the group's position", &error))?;
        match known(&committed).get(&partition) {
            Some(offset) => Ok(*offset),
            None => Ok(watermarks(&self.consumer, &self.topic, partition, deadline(POSITION_TIMEOUT))?.0),
        }
    }

    /// Seeks past batches that cannot be decoded.
    fn skip_unreadable(&mut self) {
        for (partition, offset) in self.troubles.due_seeks() {
            match self.consumer.seek(&self.topic, partition as i32, Offset::Offset(offset as i64), SEEK_TIMEOUT) {
                Ok(()) => _ = self.next.insert(partition, offset),
                Err(error) => tracing::warn!(partition, offset, %error, "seeking past an unreadable batch failed"),
            }
        }
        // The feed puts skipped batches in quarantine.
        self.troubles.take_passed_over();
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
        let (until, consumer) = (deadline(timeout), Arc::clone(&self.consumer));
        let mut count = 0;
        while count < BATCH_RECORDS {
            let mut wait = if count == 0 { until.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            if self.is_split {
                wait = wait.min(PARTITION_POLL_INTERVAL);
                // At each poll, because a rebalance joins the queues again.
                let assigned = consumer.assignment().map_err(|error| log_error("asking for the partitions", &error))?;
                for partition in assigned.elements().iter().map(TopicPartitionListElem::partition) {
                    let queue = consumer.split_partition_queue(&self.topic, partition);
                    while count < BATCH_RECORDS
                        && let Some(polled) = queue.as_ref().and_then(|queue| queue.poll(Duration::ZERO))
                    {
                        count += self.take(polled, Some(partition as u32), apply)?;
                    }
                }
                self.skip_unreadable();
            }
            match consumer.poll(wait) {
                Some(polled) => {
                    if count == 0 && polled.is_ok() {
                        consumer.context().record_answer();
                    }
                    count += self.take(polled, None, apply)?;
                }
                // A rebalance ends a call early and without a message.
                None if count > 0 || Instant::now() >= until => break,
                None => {}
            }
        }
        if !self.has_uncommitted
            && let Err(error) = self.commit_positions(CommitMode::Async)
        {
            // The next commit makes up for it.
            tracing::debug!(%error, "the group's position after markers was not committed");
        }
        Ok(count)
    }

    fn commit(&mut self) -> Result<(), LogError> {
        use RDKafkaErrorCode as Code;
        self.has_uncommitted = false;
        let Err(error) = self.commit_positions(CommitMode::Sync) else { return Ok(()) };
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
