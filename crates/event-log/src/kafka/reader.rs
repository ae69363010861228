//! Reading all partitions of the topic.
//!
//! Partitions are assigned by hand. librdkafka requires a group's name, but nothing is committed and no broker sees the group.
//!
//! Transaction markers take offsets and are never delivered, so a partition's position is not the last record's offset + 1. The reader
//! asks librdkafka for its position once a poll has taken everything. An error moves that position too, so it is ignored for a
//! partition that cannot be read ([`Troubles`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::KafkaSettings;
use super::client::{Events, create, drain_events, log_error, partition_count, watermarks};
use super::message::{ReadError, take};
use super::troubles::Troubles;
use crate::{LogError, PassedOver, Positions, Reader, RecordRef, deadline};

/// The most records of one poll.
const BATCH_RECORDS: usize = 8_192;
/// How often the reader looks for new partitions and, while idle, for deleted records.
const TOPIC_CHECK_INTERVAL: Duration = Duration::from_secs(3);
/// How long such a check may delay reading.
const TOPIC_CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a seek may take. It only involves librdkafka's own threads.
pub(super) const SEEK_TIMEOUT: Duration = Duration::from_secs(1);
/// The group's name that librdkafka requires.
const UNUSED_GROUP: &str = "tandem-no-group";
/// The tuning of all consumers: a short pause after a failed fetch, for latency, and after a full queue, which by default is a second
/// and would stall a replay.
pub(super) const CONSUMER_TUNING: [(&str, &str); 3] =
    [("fetch.error.backoff.ms", "20"), ("fetch.queue.backoff.ms", "10"), ("reconnect.backoff.max.ms", "1000")];

pub(super) struct KafkaReader {
    consumer: BaseConsumer<Events>,
    /// Fetches metadata and watermarks. On the consumer's own connection a response waits behind an empty fetch.
    client: Arc<BaseConsumer<Events>>,
    topic: String,
    /// The next offset to read, by partition. All these partitions are assigned.
    next: Vec<u64>,
    troubles: Troubles,
    /// When to look for new partitions.
    next_check: Instant,
    /// Whether the last poll returned no records.
    is_idle: bool,
}

impl KafkaReader {
    pub(super) fn open(
        settings: &KafkaSettings,
        client: Arc<BaseConsumer<Events>>,
        from: &Positions,
        until: Instant,
    ) -> Result<KafkaReader, LogError> {
        let consumer = consumer(settings)?;
        let next_check = Instant::now() + TOPIC_CHECK_INTERVAL;
        let (topic, troubles) = (settings.topic.clone(), Troubles::default());
        let mut reader =
            KafkaReader { consumer, client, topic, next: Vec::new(), troubles, next_check, is_idle: false };
        let count = partition_count(&reader.client, &reader.topic, until)?;
        reader.add_partitions(count, |partition| from.get(&partition).copied(), until)?;
        Ok(reader)
    }

    /// Assigns the partitions up to `count` that are not assigned yet, at the positions that `from` returns. A position that the log
    /// does not have is corrected here and not at the first fetch, so that it is never taken for the end.
    fn add_partitions(
        &mut self,
        count: u32,
        from: impl Fn(u32) -> Option<u64>,
        until: Instant,
    ) -> Result<(), LogError> {
        let known = self.next.len() as u32;
        let mut added = TopicPartitionList::new();
        let mut starts = Vec::new();
        for partition in known..count {
            let (low, high) = watermarks(&self.client, &self.topic, partition, until)?;
            let start = from(partition).filter(|from| (low..=high).contains(from)).unwrap_or(low);
            added
                .add_partition_offset(&self.topic, partition as i32, Offset::Offset(start as i64))
                .map_err(|error| log_error("setting where to read from", &error))?;
            starts.push(start);
        }
        if starts.is_empty() {
            return Ok(());
        }
        self.consumer.incremental_assign(&added).map_err(|error| log_error("beginning to read", &error))?;
        self.next.extend(starts);
        Ok(())
    }

    fn check_topic(&mut self) {
        if Instant::now() < self.next_check {
            return;
        }
        self.next_check = Instant::now() + TOPIC_CHECK_INTERVAL;
        let until = deadline(TOPIC_CHECK_TIMEOUT);
        drain_events(&self.client);
        let checked = partition_count(&self.client, &self.topic, until).and_then(|count| {
            self.add_partitions(count, |_| None, until)?;
            if !self.is_idle {
                return Ok(());
            }
            // Records that were deleted before they were read count as read.
            for partition in 0..count.min(self.next.len() as u32) {
                let (low, _) = watermarks(&self.client, &self.topic, partition, until)?;
                let next = &mut self.next[partition as usize];
                *next = low.max(*next);
            }
            Ok(())
        });
        if let Err(error) = checked {
            tracing::debug!(%error, "the topic was not checked for new partitions");
        }
    }

    /// Adopts librdkafka's positions, which are after transaction markers.
    fn skip_markers(&mut self) {
        let Ok(reached) = self.consumer.position() else { return };
        for element in reached.elements() {
            if let (Some(next), Offset::Offset(reached)) =
                (self.next.get_mut(element.partition() as usize), element.offset())
                && !self.troubles.disproves(element.partition() as u32, reached.max(0) as u64)
            {
                *next = reached.max(0) as u64;
            }
        }
    }

    /// Takes up to `limit` records, and waits up to `wait` until there are that many. librdkafka retries after a temporary error.
    fn take(&mut self, wait: Duration, limit: usize, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError> {
        let KafkaReader { consumer, next, troubles, .. } = self;
        let (mut count, mut moved_back) = (0, BTreeSet::new());
        take(consumer, wait, limit, |taken| match taken {
            Ok(record) => {
                count += 1;
                troubles.record_read(record.partition, record.offset);
                apply(record);
                if let Some(next) = next.get_mut(record.partition as usize) {
                    if record.offset < *next {
                        moved_back.insert(record.partition);
                    }
                    *next = record.offset + 1;
                }
                Ok(())
            }
            Err(error) => record_error(consumer, troubles, next, &error),
        })?;
        moved_back.into_iter().try_for_each(|partition| self.reset_position(partition))?;
        Ok(count)
    }

    /// Has librdkafka forget its position in a partition of a recreated topic. It reads the new topic from
    /// the start, but reports the position that it had in the old one until it is past that.
    fn reset_position(&mut self, partition: u32) -> Result<(), LogError> {
        let next = Offset::Offset(self.next[partition as usize] as i64);
        self.consumer
            .seek(&self.topic, partition as i32, next, SEEK_TIMEOUT)
            .map_err(|error| log_error("seeking in a recreated topic", &error))
    }

    /// Seeks past batches that cannot be decoded.
    fn skip_unreadable(&mut self) {
        for (partition, offset) in self.troubles.due_seeks() {
            let sought = Offset::Offset(offset as i64);
            match self.consumer.seek(&self.topic, partition as i32, sought, SEEK_TIMEOUT) {
                Ok(()) => self.next[partition as usize] = offset,
                Err(error) => tracing::warn!(partition, offset, %error, "seeking past an unreadable batch failed"),
            }
        }
    }
}

/// Records an error. Returns it if it is permanent.
fn record_error(
    consumer: &BaseConsumer<Events>,
    troubles: &mut Troubles,
    next: &[u64],
    error: &ReadError,
) -> Result<(), LogError> {
    let place = error.partition.and_then(|partition| Some((partition, *next.get(partition as usize)?)));
    if let Some((partition, position)) = place {
        troubles.record_error(partition, position, error);
        if Troubles::is_unreadable(error) {
            return Ok(());
        }
    }
    check_error(consumer, &error.error)
}

impl Reader for KafkaReader {
    fn poll(&mut self, timeout: Duration, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError> {
        let until = deadline(timeout);
        self.check_topic();
        self.skip_unreadable();
        let mut count = self.take(Duration::ZERO, BATCH_RECORDS, apply)?;
        // librdkafka waits until it has `limit` records, so the waiting call asks for one.
        while count == 0 && Instant::now() < until {
            count = self.take(until.saturating_duration_since(Instant::now()), 1, apply)?;
            if count > 0 {
                count += self.take(Duration::ZERO, BATCH_RECORDS - count, apply)?;
            }
            self.skip_unreadable();
        }
        self.is_idle = count == 0;
        if count < BATCH_RECORDS {
            self.skip_markers();
        }
        Ok(count)
    }

    fn trouble(&self) -> Option<String> {
        self.troubles.lasting()
    }

    fn passed_over(&mut self) -> Vec<PassedOver> {
        self.troubles.take_passed_over()
    }

    fn positions(&self) -> Positions {
        (0..).zip(self.next.iter().copied()).collect()
    }

    fn durable_positions(&self) -> Positions {
        // Brokers deliver only what all in-sync replicas have.
        self.positions()
    }
}

/// Creates a consumer without partitions.
pub(super) fn consumer(settings: &KafkaSettings) -> Result<BaseConsumer<Events>, LogError> {
    let fixed = [
        ("group.id", UNUSED_GROUP),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "earliest"),
        ("isolation.level", "read_uncommitted"),
    ];
    create(settings, "reader", &CONSUMER_TUNING, &fixed)
}

/// Logs an error. Returns it if it is permanent; librdkafka retries after other errors.
pub(super) fn check_error(consumer: &BaseConsumer<Events>, error: &KafkaError) -> Result<(), LogError> {
    consumer.context().record_trouble(error, "reading");
    let meaning = log_error("reading", error);
    let is_temporary =
        matches!(meaning, LogError::Unavailable(_)) && !matches!(error, KafkaError::MessageConsumptionFatal(_));
    if is_temporary { Ok(()) } else { Err(meaning) }
}
