//! Reading all partitions of the topic.
//!
//! Partitions are assigned by hand. librdkafka wants a group's name to read at all, but nothing is committed to it and no
//! broker hears of it.
//!
//! Transaction markers take offsets and are never handed over, so where a partition is read up to is not the last
//! record's offset + 1: librdkafka knows, and is asked once a poll has taken all there was. An error moves that position too
//! ([`Troubles`]), so it is not asked of a partition that cannot be read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{Events, create, drain_events, log_error, partition_count, watermarks};
use super::message::{ReadError, take};
use super::troubles::Troubles;
use super::{KafkaSettings, deadline};
use crate::{LogError, PassedOver, Positions, Reader, RecordRef};

/// How many records one poll hands over at most.
const BATCH_RECORDS: usize = 8_192;
/// How often the topic is asked for new partitions, and an idle reader asks for what was cut off.
const TOPIC_CHECK_INTERVAL: Duration = Duration::from_secs(3);
/// How long such a check may hold up reading. It is one round trip, and is made up for at the next one.
const TOPIC_CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a seek may take. It waits for librdkafka's own threads only.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);
/// The group's name that librdkafka wants.
const UNUSED_GROUP: &str = "tandem-no-group";
/// How a consumer is tuned. For latency a fetch that failed is soon tried again. For replay a fetcher whose queue was full looks
/// again soon: by default it rests a second, and the reader runs dry.
pub(super) const CONSUMER_TUNING: [(&str, &str); 3] =
    [("fetch.error.backoff.ms", "20"), ("fetch.queue.backoff.ms", "10"), ("reconnect.backoff.max.ms", "1000")];

pub(super) struct KafkaReader {
    consumer: BaseConsumer<Events>,
    /// Asks about the topic. The consumer's own connection cannot: an answer there waits behind an empty fetch.
    client: Arc<BaseConsumer<Events>>,
    topic: String,
    /// The next offset to read, by partition. All of these are assigned.
    next: Vec<u64>,
    troubles: Troubles,
    /// When to ask for new partitions.
    next_check: Instant,
    /// Whether the last poll brought nothing.
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

    /// Begins to read the partitions up to `count` that are not read yet, where `from` says. A position that the log does
    /// not have is noticed here and not at the first fetch, so that it is never taken for the end.
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
            // What was cut off before it was read counts as read: there is nothing to wait for.
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

    /// Takes over how far librdkafka has come, transaction markers included.
    fn move_behind_markers(&mut self) {
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

    /// Takes up to `limit` records, and waits up to `wait` until there are so many. Trouble that passes is noted and waited
    /// out: librdkafka tries again by itself.
    fn take(&mut self, wait: Duration, limit: usize, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError> {
        let KafkaReader { consumer, next, troubles, .. } = self;
        let mut count = 0;
        take(consumer, wait, limit, |taken| match taken {
            Ok(record) => {
                count += 1;
                troubles.read(record.partition, record.offset);
                apply(record);
                if let Some(next) = next.get_mut(record.partition as usize) {
                    *next = record.offset + 1;
                }
                Ok(())
            }
            Err(error) => note(consumer, troubles, next, &error),
        })?;
        Ok(count)
    }

    /// Goes on behind what cannot be read.
    fn pass_over(&mut self) {
        for (partition, offset) in self.troubles.seek() {
            let sought = Offset::Offset(offset as i64);
            match self.consumer.seek(&self.topic, partition as i32, sought, SEEK_TIMEOUT) {
                Ok(()) => self.next[partition as usize] = offset,
                Err(error) => tracing::warn!(partition, offset, %error, "seeking past an unreadable batch failed"),
            }
        }
    }
}

/// Notes an error of reading. What does not pass is returned.
fn note(
    consumer: &BaseConsumer<Events>,
    troubles: &mut Troubles,
    next: &[u64],
    error: &ReadError,
) -> Result<(), LogError> {
    let place = error.partition.and_then(|partition| Some((partition, *next.get(partition as usize)?)));
    if let Some((partition, position)) = place {
        troubles.note(partition, position, error);
        if Troubles::is_unreadable(error) {
            return Ok(());
        }
    }
    heed(consumer, &error.error)
}

impl Reader for KafkaReader {
    fn poll(&mut self, timeout: Duration, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError> {
        let until = deadline(timeout);
        self.check_topic();
        self.pass_over();
        let mut count = self.take(Duration::ZERO, BATCH_RECORDS, apply)?;
        // librdkafka waits until it has as many as it is asked for, so one is waited for.
        while count == 0 && Instant::now() < until {
            count = self.take(until.saturating_duration_since(Instant::now()), 1, apply)?;
            if count > 0 {
                count += self.take(Duration::ZERO, BATCH_RECORDS - count, apply)?;
            }
            self.pass_over();
        }
        self.is_idle = count == 0;
        if count < BATCH_RECORDS {
            self.move_behind_markers();
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
        // Brokers hand out only what all replicas in sync have.
        self.positions()
    }
}

/// A consumer with nothing to read yet.
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

/// Takes what is there, up to `limit` messages; waits up to `timeout` for the first and not at all for the others. Trouble
/// that passes is noted and waited out: librdkafka connects again by itself.
pub(super) fn poll(
    consumer: &BaseConsumer<Events>,
    timeout: Duration,
    limit: usize,
    apply: &mut dyn FnMut(RecordRef<'_>),
) -> Result<usize, LogError> {
    let until = deadline(timeout);
    let mut count = 0;
    while count < limit {
        let wait = if count == 0 { until.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
        match consumer.poll(wait) {
            Some(Ok(message)) => {
                if count == 0 {
                    consumer.context().answers();
                }
                count += 1;
                apply(RecordRef::from(&message));
            }
            Some(Err(error)) => heed(consumer, &error)?,
            // The client also comes back early, without a message, after a rebalance.
            None if count > 0 || Instant::now() >= until => break,
            None => {}
        }
    }
    Ok(count)
}

/// Notes trouble that passes: librdkafka connects again by itself. What does not pass is returned.
pub(super) fn heed(consumer: &BaseConsumer<Events>, error: &KafkaError) -> Result<(), LogError> {
    consumer.context().note_trouble(error, "reading");
    let meaning = log_error("reading", error);
    let passes =
        matches!(meaning, LogError::Unavailable(_)) && !matches!(error, KafkaError::MessageConsumptionFatal(_));
    if passes { Ok(()) } else { Err(meaning) }
}
