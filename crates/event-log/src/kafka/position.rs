//! A publisher's position as the brokers keep it: the committed offset of a consumer group that has the publisher's name, with
//! where the topic ended as its metadata.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::KafkaSettings;
use super::client::{Events, create, log_error, time_left};
use crate::LogError;

/// How long to wait before the committed position is asked for again (its partition is on the move, say).
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// The partition whose committed offset holds the position. Every topic has it.
const PARTITION: i32 = 0;

/// A position as it was committed.
pub(super) struct Noted {
    pub(super) position: u64,
    /// Where the topic's partitions ended before the batch it came with, added up. Its brokers keep it as the offset's
    /// metadata, which has room for little.
    pub(super) total: i64,
}

/// Reads the position back, and makes what it takes to write it.
///
/// The offsets are read "committed": one whose transaction is still being ended is waited for, not passed over.
pub(super) fn committed(
    settings: &KafkaSettings,
    name: &str,
    deadline: Instant,
) -> Result<(ConsumerGroupMetadata, Option<Noted>), LogError> {
    let fixed = [("group.id", name), ("isolation.level", "read_committed"), ("enable.auto.commit", "false")];
    let consumer: BaseConsumer<Events> = create(settings, "publisher's position", &[], &fixed)?;
    let group = consumer
        .group_metadata()
        .ok_or_else(|| LogError::Unavailable("librdkafka has no metadata for the position's group".to_owned()))?;
    loop {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&settings.topic, PARTITION);
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
            Ok(noted) => return Ok((group, noted)),
            Err(LogError::Unavailable(_)) if Instant::now() < deadline => thread::park_timeout(RETRY_PAUSE),
            Err(error) => return Err(error),
        }
    }
}

/// What is committed in a transaction to note `position`, beside `total` (see [`Noted`]).
pub(super) fn offsets(topic: &str, position: i64, total: i64) -> Result<TopicPartitionList, KafkaError> {
    let mut offsets = TopicPartitionList::new();
    let mut element = offsets.add_partition(topic, PARTITION);
    element.set_metadata(total.to_string());
    element.set_offset(Offset::Offset(position))?;
    Ok(offsets)
}
