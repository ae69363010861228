//! A publisher's position, stored in Kafka as the committed offset of a consumer group called like the publisher, on the topic's
//! partition 0. It is committed in the transaction of its records, so the two are atomic. No consumer is ever in the group. The
//! offset's metadata has the sums of the partitions' ends and starts, and the publisher's note.
//!
//! KAFKA-20734: brokers of Kafka 4 that were all away at once may lose the end of a transaction that they answered as committed. Its
//! offset then stays pending, and a read of committed offsets waits for ever. [`end_transactions`] repairs that.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::KafkaSettings;
use super::client::{Events, create, log_error, publish_error, time_left};
use crate::LogError;

/// The pause before the committed offset is read again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How long the brokers may take to end a transaction that its producer has left. Usually it takes milliseconds.
const SETTLING_TIME: Duration = Duration::from_secs(1);
/// The number of consecutive reads that must time out, while the brokers answer other requests, to count as KAFKA-20734.
const MIN_PENDING_READS: u32 = 2;
/// The partition whose committed offset is the position. Every topic has it.
const PARTITION: i32 = 0;
/// The partition whose committed offset has [`MARK`] as its metadata, or nothing.
const MARKED_PARTITION: i32 = 1;
/// Says that [`end_transactions`] ran and that nothing was committed since.
const MARK: &str = "left open";

/// A position that was committed.
pub(super) struct StoredPosition {
    pub(super) value: u64,
    /// The sum of the partitions' ends before its transaction.
    pub(super) ends: i64,
    /// The sum of the partitions' starts when the log last had the state of every account; `None` if it was not stored.
    pub(super) starts: Option<i64>,
    /// The publisher's note.
    pub(super) note: String,
}

impl StoredPosition {
    /// Whether a topic whose partitions end at `ends`, in sum, still has the records of this position. A recreated topic is shorter.
    pub(super) fn is_valid(&self, ends: i64) -> bool {
        ends >= self.ends.max(1)
    }
}

/// What the brokers store of a publisher.
pub(super) struct Stored {
    pub(super) position: Option<StoredPosition>,
    /// Whether the mark is set.
    pub(super) is_marked: bool,
}

/// The name of the consumer group, and the prefix of the transactional ids, of the publishers called `name`. Transactional ids belong to
/// the whole cluster, so the name has the topic.
pub(super) fn group_name(settings: &KafkaSettings, name: &str) -> String {
    format!("{name}-{}", settings.topic)
}

/// A consumer that reads what the publishers of `group` stored. It never joins the group.
pub(super) fn consumer(
    settings: &KafkaSettings,
    group: &str,
    isolation: &str,
) -> Result<BaseConsumer<Events>, LogError> {
    let fixed = [("group.id", group), ("isolation.level", isolation), ("enable.auto.commit", "false")];
    create(settings, "publisher's position", &[], &fixed)
}

/// Reads what is stored, and returns the group for storing it again. `producers` are those of the publisher that is opened, on a topic
/// with `partitions`; they have fenced all earlier ones.
///
/// The offsets are read "committed": the read waits for a transaction that is being ended.
pub(super) fn fetch(
    settings: &KafkaSettings,
    group: &str,
    (producers, partitions): (&[BaseProducer<Events>], u32),
    deadline: Instant,
) -> Result<(ConsumerGroupMetadata, Stored), LogError> {
    let consumer = |isolation| consumer(settings, group, isolation);
    let committed = consumer("read_committed")?;
    let group = committed
        .group_metadata()
        .ok_or_else(|| LogError::Unavailable("librdkafka has no metadata for the position's group".to_owned()))?;
    let mut uncommitted = None;
    for _ in 0..MIN_PENDING_READS {
        match read(&committed, &settings.topic, deadline.min(Instant::now() + SETTLING_TIME)) {
            Err(LogError::Unavailable(_)) => {}
            stored => return Ok((group, stored?)),
        }
        // Fails if the brokers are slow or away.
        let uncommitted = match &uncommitted {
            Some(consumer) => consumer,
            None => uncommitted.insert(consumer("read_uncommitted")?),
        };
        read(uncommitted, &settings.topic, deadline)?;
    }
    if partitions <= MARKED_PARTITION as u32 {
        let text = "Kafka has left a transaction open that it had ended (KAFKA-20734), and with one partition it cannot be ended";
        return Err(LogError::Unavailable(format!("{text} but by kafka-transactions.sh")));
    }
    tracing::warn!("Kafka has left a transaction open that it had ended (KAFKA-20734): it is being ended");
    end_transactions(producers, &settings.topic, &group, deadline)?;
    let stored = read(&committed, &settings.topic, deadline)?;
    Ok((group, stored))
}

/// Reads what is stored. A `consumer` that reads committed waits for a transaction that is being ended.
pub(super) fn read(consumer: &BaseConsumer<Events>, topic: &str, deadline: Instant) -> Result<Stored, LogError> {
    loop {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(topic, PARTITION);
        asked.add_partition(topic, MARKED_PARTITION);
        let answer = consumer.committed_offsets(asked, time_left(deadline)).and_then(|answer| {
            let mut stored = Stored { position: None, is_marked: false };
            for element in answer.elements() {
                match (element.partition(), element.offset()) {
                    (PARTITION, offset) => {
                        element.error()?;
                        let mut metadata = element.metadata().splitn(3, ' ');
                        let mut sum = || metadata.next()?.parse().ok();
                        let (ends, starts) = (sum().unwrap_or(0), sum());
                        let note = metadata.next().unwrap_or_default().to_owned();
                        if let Offset::Offset(offset) = offset {
                            let value = u64::try_from(offset).ok();
                            stored.position = value.map(|value| StoredPosition { value, ends, starts, note });
                        }
                    }
                    (_, Offset::Offset(_)) => {
                        element.error()?;
                        stored.is_marked = element.metadata() == MARK;
                    }
                    // A topic with one partition.
                    _none => {}
                }
            }
            Ok(stored)
        });
        match answer.map_err(|error| log_error("reading the publisher's position", &error)) {
            Err(LogError::Unavailable(_)) if Instant::now() < deadline => thread::park_timeout(RETRY_PAUSE),
            outcome => return outcome,
        }
    }
}

/// Ends transactions that the brokers have left open (KAFKA-20734), by committing an empty transaction of each producer, and sets the
/// mark.
///
/// The records of such a transaction may have been aborted in some partitions, so the mark makes
/// [`may_lose_records`](crate::Publisher::may_lose_records) true for every publisher until one has committed.
fn end_transactions(
    producers: &[BaseProducer<Events>],
    topic: &str,
    group: &ConsumerGroupMetadata,
    deadline: Instant,
) -> Result<(), LogError> {
    for producer in producers {
        let mut mark = TopicPartitionList::new();
        let ended = add_offset(&mut mark, topic, MARKED_PARTITION, 0, MARK)
            .and_then(|()| producer.begin_transaction())
            .and_then(|()| producer.send_offsets_to_transaction(&mark, group, time_left(deadline)))
            .and_then(|()| producer.commit_transaction(time_left(deadline)));
        ended.map_err(|error| publish_error(producer, "ending transactions that were left open", &error))?;
    }
    Ok(())
}

/// The offsets that a transaction commits to store `position` with the sums of the partitions' ends and starts and with `note`, and to
/// remove the mark if `is_marked`.
pub(super) fn offsets(
    topic: &str,
    (position, note): (i64, &str),
    (ends, starts): (i64, i64),
    is_marked: bool,
) -> Result<TopicPartitionList, KafkaError> {
    let mut offsets = TopicPartitionList::new();
    add_offset(&mut offsets, topic, PARTITION, position, &format!("{ends} {starts} {note}"))?;
    if is_marked {
        add_offset(&mut offsets, topic, MARKED_PARTITION, 0, "")?;
    }
    Ok(offsets)
}

fn add_offset(
    offsets: &mut TopicPartitionList,
    topic: &str,
    partition: i32,
    offset: i64,
    metadata: &str,
) -> Result<(), KafkaError> {
    let mut element = offsets.add_partition(topic, partition);
    element.set_metadata(metadata);
    element.set_offset(Offset::Offset(offset))
}
