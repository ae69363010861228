//! A publisher's position as the brokers keep it: the committed offset of a consumer group that has the publisher's name, with
//! where the topic ended as its metadata.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::KafkaSettings;
use super::client::{Events, create, log_error, publish_error, time_left};
use crate::LogError;

/// How long to wait before the committed position is asked for again (its partition is on the move, say).
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How long a transaction may take to end that its producer no longer waits for. It takes milliseconds.
const SETTLING_TIME: Duration = Duration::from_secs(1);
/// The partition whose committed offset holds the position. Every topic has it.
const PARTITION: i32 = 0;
/// A partition whose committed offset says nothing. Most topics have it.
const OTHER_PARTITION: i32 = 1;

/// A position as it was committed.
pub(super) struct Noted {
    pub(super) position: u64,
    /// Where the topic's partitions ended before the batch it came with, added up. Its brokers keep it as the offset's
    /// metadata, which has room for little.
    pub(super) total: i64,
}

/// What the brokers keep of a publisher.
pub(super) struct Kept {
    pub(super) noted: Option<Noted>,
    /// What it takes to write it.
    pub(super) group: ConsumerGroupMetadata,
    /// Whether the brokers had lost the end of a transaction: see [`end_transactions`].
    pub(super) was_left_open: bool,
}

/// Reads the position back. `producers` are those of the publisher that is opened: they have fenced all before them.
///
/// The offsets are read "committed": one whose transaction is still being ended is waited for, not passed over. If it is not the
/// brokers that are slow, it would be waited for in vain.
pub(super) fn kept(
    settings: &KafkaSettings,
    name: &str,
    producers: &[BaseProducer<Events>],
    deadline: Instant,
) -> Result<Kept, LogError> {
    let consumer = |isolation| -> Result<BaseConsumer<Events>, LogError> {
        let fixed = [("group.id", name), ("isolation.level", isolation), ("enable.auto.commit", "false")];
        create(settings, "publisher's position", &[], &fixed)
    };
    let committed = consumer("read_committed")?;
    let group = committed
        .group_metadata()
        .ok_or_else(|| LogError::Unavailable("librdkafka has no metadata for the position's group".to_owned()))?;
    let read_soon = || read(&committed, &settings.topic, deadline.min(Instant::now() + SETTLING_TIME));
    let is_unsaid = |found: &Result<_, _>| matches!(found, Err(LogError::Unavailable(_)));
    let mut found = read_soon();
    if is_unsaid(&found) {
        // Brokers that are slow or away do not say this either.
        read(&consumer("read_uncommitted")?, &settings.topic, deadline)?;
        found = read_soon();
    }
    let was_left_open = is_unsaid(&found);
    if was_left_open {
        tracing::warn!("Kafka has left a transaction open that it had ended (KAFKA-20734): it is ended now");
        end_transactions(producers, &settings.topic, &group, deadline)?;
        found = read(&committed, &settings.topic, deadline);
    }
    Ok(Kept { noted: found?, group, was_left_open })
}

fn read(consumer: &BaseConsumer<Events>, topic: &str, deadline: Instant) -> Result<Option<Noted>, LogError> {
    loop {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(topic, PARTITION);
        let answer = consumer.committed_offsets(asked, time_left(deadline)).and_then(|answer| {
            let elements = answer.elements();
            let Some(element) = elements.first() else { return Ok(None) };
            element.error()?;
            let position = match element.offset() {
                Offset::Offset(position) => u64::try_from(position).ok(),
                _none => None,
            };
            // Positions of the first versions came without.
            let total = element.metadata().parse().unwrap_or(0);
            Ok(position.map(|position| Noted { position, total }))
        });
        match answer.map_err(|error| log_error("reading the publisher's position", &error)) {
            Err(LogError::Unavailable(_)) if Instant::now() < deadline => thread::park_timeout(RETRY_PAUSE),
            outcome => return outcome,
        }
    }
}

/// Has the brokers commit what they hold of transactions that they themselves count as ended.
///
/// Brokers of Kafka 4 that all were away at once can lose the end of a transaction that they had answered as committed
/// (KAFKA-20734: what has no leader for a moment they take for deleted). Its offset stays pending for ever then, and whoever reads
/// "committed" waits for ever. The end of the producer's next transaction is its end too, so each producer commits an offset that
/// says nothing. What is pending is a position behind the last of its records, and nobody but these two could still send another.
///
/// The records before it are not certain for that: in each of the topic's partitions they wait for the next one of that producer,
/// and if the transaction was to be aborted, it may have been so there ([`may_lose_records`](crate::Publisher::may_lose_records)).
fn end_transactions(
    producers: &[BaseProducer<Events>],
    topic: &str,
    group: &ConsumerGroupMetadata,
    deadline: Instant,
) -> Result<(), LogError> {
    for producer in producers {
        let ended = producer
            .begin_transaction()
            .and_then(|()| offset_list(topic, OTHER_PARTITION, 0, ""))
            .and_then(|offsets| producer.send_offsets_to_transaction(&offsets, group, time_left(deadline)))
            .and_then(|()| producer.commit_transaction(time_left(deadline)));
        ended.map_err(|error| publish_error(producer, "ending transactions that were left open", &error))?;
    }
    Ok(())
}

/// What is committed in a transaction to note `position`, beside `total` (see [`Noted`]).
pub(super) fn offsets(topic: &str, position: i64, total: i64) -> Result<TopicPartitionList, KafkaError> {
    offset_list(topic, PARTITION, position, &total.to_string())
}

fn offset_list(topic: &str, partition: i32, offset: i64, metadata: &str) -> Result<TopicPartitionList, KafkaError> {
    let mut offsets = TopicPartitionList::new();
    let mut element = offsets.add_partition(topic, partition);
    element.set_metadata(metadata);
    element.set_offset(Offset::Offset(offset))?;
    Ok(offsets)
}
