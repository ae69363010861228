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
/// How many times in a row it must not have ended, while the brokers answer another question.
const LEFT_OPEN_IN_A_ROW: u32 = 2;
/// The partition whose committed offset holds the position. Every topic has it.
const PARTITION: i32 = 0;
/// The partition whose committed offset has [`MARK`] as its metadata, or nothing to say. Most topics have it.
const MARKED_PARTITION: i32 = 1;
/// Says that a publisher has [ended transactions](end_transactions), and that none has published since then.
const MARK: &str = "left open";

/// A position as it was committed.
pub(super) struct Noted {
    pub(super) position: u64,
    /// Where the topic's partitions ended before the batch it came with, added up. Its brokers keep the totals as the offset's
    /// metadata, which has room for little.
    pub(super) total: i64,
    /// Where they began, added up, as far as whoever published has made up for it; `None` where it was not noted.
    pub(super) begun: Option<i64>,
}

/// What the brokers keep of a publisher.
pub(super) struct Kept {
    pub(super) noted: Option<Noted>,
    /// Whether transactions were [left open](end_transactions), and nothing has been published since.
    pub(super) is_marked: bool,
}

/// Reads the position back, and gives what it takes to write it. `producers` are those of the publisher that is opened, on a
/// topic with so many `partitions`: they have fenced all before them.
///
/// The offsets are read "committed": one whose transaction is still being ended is waited for, not passed over. If it is not the
/// brokers that are slow, it would be waited for in vain.
pub(super) fn kept(
    settings: &KafkaSettings,
    name: &str,
    (producers, partitions): (&[BaseProducer<Events>], u32),
    deadline: Instant,
) -> Result<(ConsumerGroupMetadata, Kept), LogError> {
    let consumer = |isolation| -> Result<BaseConsumer<Events>, LogError> {
        let fixed = [("group.id", name), ("isolation.level", isolation), ("enable.auto.commit", "false")];
        create(settings, "publisher's position", &[], &fixed)
    };
    let committed = consumer("read_committed")?;
    let group = committed
        .group_metadata()
        .ok_or_else(|| LogError::Unavailable("librdkafka has no metadata for the position's group".to_owned()))?;
    let mut uncommitted = None;
    for _ in 0..LEFT_OPEN_IN_A_ROW {
        match read(&committed, &settings.topic, deadline.min(Instant::now() + SETTLING_TIME)) {
            Err(LogError::Unavailable(_)) => {}
            said => return Ok((group, said?)),
        }
        // Brokers that are slow or away do not say this either.
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
    let kept = read(&committed, &settings.topic, deadline)?;
    Ok((group, kept))
}

fn read(consumer: &BaseConsumer<Events>, topic: &str, deadline: Instant) -> Result<Kept, LogError> {
    loop {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(topic, PARTITION);
        asked.add_partition(topic, MARKED_PARTITION);
        let answer = consumer.committed_offsets(asked, time_left(deadline)).and_then(|answer| {
            let mut kept = Kept { noted: None, is_marked: false };
            for element in answer.elements() {
                match (element.partition(), element.offset()) {
                    (PARTITION, offset) => {
                        element.error()?;
                        let mut totals = element.metadata().split(' ').map(|total| total.parse().ok());
                        let (total, begun) = (totals.next().flatten().unwrap_or(0), totals.next().flatten());
                        if let Offset::Offset(position) = offset {
                            let noted = |position| Noted { position, total, begun };
                            kept.noted = u64::try_from(position).ok().map(noted);
                        }
                    }
                    (_, Offset::Offset(_)) => {
                        element.error()?;
                        kept.is_marked = element.metadata() == MARK;
                    }
                    // A topic with one partition.
                    _none => {}
                }
            }
            Ok(kept)
        });
        match answer.map_err(|error| log_error("reading the publisher's position", &error)) {
            Err(LogError::Unavailable(_)) if Instant::now() < deadline => thread::park_timeout(RETRY_PAUSE),
            outcome => return outcome,
        }
    }
}

/// Has the brokers commit what they hold of transactions that they themselves count as ended, and a mark that says so.
///
/// Brokers of Kafka 4 that all were away at once can lose the end of a transaction that they had answered as committed
/// (KAFKA-20734: what has no leader for a moment they take for deleted). Its offset stays pending for ever then, and whoever reads
/// "committed" waits for ever. The end of the producer's next transaction is its end too. What is pending is a position behind the
/// last of its records, and nobody but these two could still send another.
///
/// The records before it are not certain for that: in each of the topic's partitions they wait for the next one of that producer,
/// and if the transaction was to be aborted, it may have been so there
/// ([`may_lose_records`](crate::Publisher::may_lose_records)). The mark tells every publisher, until one has published.
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

/// What is committed in a transaction to note `position`, beside the totals of where the topic's partitions ended and began (see
/// [`Noted`]), and to take the mark away if there is one.
pub(super) fn offsets(
    topic: &str,
    position: i64,
    (total, begun): (i64, i64),
    is_marked: bool,
) -> Result<TopicPartitionList, KafkaError> {
    let mut offsets = TopicPartitionList::new();
    add_offset(&mut offsets, topic, PARTITION, position, &format!("{total} {begun}"))?;
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
