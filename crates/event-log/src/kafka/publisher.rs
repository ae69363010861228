//! Publishing to Kafka, in transactions that have the publisher's position with them.
//!
//! Batches that follow each other share a transaction for a while: to tell the coordinator of each partition, to commit the
//! position and to write the markers takes longer than the batch. Views read uncommitted and need not wait for that.
//!
//! The position is the committed offset of the consumer group that has the publisher's name, on the topic's partition 0.
//! Kafka commits it in the same transaction as the records, so the two never disagree. No consumer is ever in that group.
//!
//! A topic that is deleted and made anew takes the next batch as if nothing had happened. But offsets begin at 0 again, so
//! they are compared with those before: of each batch before it is committed, now and then while there is none, and when a
//! publisher is opened, for the position has the partitions' ends with it. If they went back, the position counts no more:
//! whoever publishes next sees that the log has nothing of what was published, and makes up for it.
//!
//! Records that somebody has deleted from the topic's start show by where the partitions begin, which the position has with it
//! too. Compaction never moves that. A publisher that finds it moved says that the log may have lost records, once.
//!
//! Brokers forget a position that nobody has committed for `offsets.retention.minutes`. So it is committed again while there is
//! nothing to publish.
//!
//! The producers are polled here and not by a thread of librdkafka's binding: that one sleeps up to 100 ms where a
//! commit waits for it.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header as KafkaHeader, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};

use super::batch_size::BatchSize;
use super::client::{Events, partition_count, publish_error, time_left, watermarks};
use super::{KafkaSettings, position, producers, topic};
use crate::{LogError, Publisher, Record};

/// How long opening may take. A new transactional producer takes about half a second to get its id.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a batch may take until librdkafka has it, and a commit until the brokers have all.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a transaction goes on, for whatever more there is to publish. Those who read committed wait so much longer; Kafka
/// Streams, too, commits at this interval where it is exactly-once. With 20 ms, and a fetch of the card closer's for each record, two
/// cores with the brokers on them took half as long again from commit to view (p50, at 1,000 events a second).
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// How long records gather under load: a batch costs this process and the brokers about as much as twenty requests to the
/// account service. Measured with all of them on two cores and 64 connections, as shares of what pgbench reached: 0.42 without,
/// 0.47 with 5 ms and 0.49 with 10 ms.
const GATHERING_TIME: Duration = Duration::from_millis(10);
/// From so many records in one batch on.
const GATHERED: usize = 16;
/// How long an abort may take. It is a courtesy to those who read committed: opening the next publisher does it too.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a producer with records under way is looked at. The client's own blocking poll never returns early.
const DRAIN_PAUSE: Duration = Duration::from_micros(100);
/// How often a publisher with nothing to publish looks whether the topic still has its records.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long the brokers may take to say so.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// How many times in a row the topic must look lost: a new leader may not know at once how far it has got.
const LOST_IN_A_ROW: u32 = 2;
/// How often a publisher with nothing to publish commits its position again. Brokers forget it after a minute at the least, and
/// after a week by default.
const REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// How many of librdkafka's events are heard at each check, at most.
const EVENTS_HEARD_A_CHECK: usize = 1_000;

pub(super) struct KafkaPublisher {
    /// They take turns, a batch each. Opening a publisher fences both of an earlier one.
    producers: [BaseProducer<Events>; 2],
    /// Whose turn it is.
    turn: usize,
    /// Asks about the topic. The producer would say where open transactions of others begin instead of where it ends.
    client: Arc<BaseConsumer<Events>>,
    topic: String,
    group: ConsumerGroupMetadata,
    batches: Arc<BatchSize>,
    /// How many bytes a batch may have.
    batch_bytes: u64,
    position: Option<u64>,
    /// When the position was last committed, by this publisher.
    committed_at: Option<Instant>,
    /// Where the topic's partitions began, added up, when the log last had the state of everything.
    begun: i64,
    /// Whether records were deleted from the topic's start since then.
    is_cut: bool,
    /// Whether its records may be lost, and the brokers still have a mark of it. Whoever opened it has taken note by the first
    /// commit.
    is_marked: bool,
    /// The transaction under way.
    open: Option<Open>,
    /// Set after an error. Whether the batch was committed is known to the brokers only: a new publisher asks them.
    spent: bool,
    /// When to look whether the topic has its records.
    next_check: Instant,
    /// How many times in a row it had not.
    lost_in_a_row: u32,
}

/// A transaction that has records, and no position yet.
struct Open {
    since: Instant,
    position: u64,
    /// Where the topic's partitions ended before it, added up. If it is no more that topic, whoever reads the position finds
    /// less there.
    total_before: i64,
}

/// What has become of the topic since the last look.
enum Fate {
    Whole,
    /// It is gone, or was made anew.
    Lost,
    /// Records were deleted from its start.
    Cut,
}

impl KafkaPublisher {
    pub(super) fn open(
        settings: &KafkaSettings,
        client: Arc<BaseConsumer<Events>>,
        batches: &Arc<BatchSize>,
        name: &str,
    ) -> Result<KafkaPublisher, LogError> {
        let deadline = Instant::now() + OPEN_TIMEOUT;
        let partitions = partition_count(&client, &settings.topic, deadline)?;
        let batch_bytes = batches.bytes();
        let producers = producers::open(settings, name, batch_bytes, deadline)?;
        let (group, kept) = position::kept(settings, name, (&producers, partitions), deadline)?;
        let mut begins = 0;
        for partition in 0..partitions {
            let (begin, end) = watermarks(&client, &settings.topic, partition, deadline)?;
            begins += begin as i64;
            producers.iter().for_each(|producer| producer.context().note_end(partition as i32, end as i64));
        }
        // A position in a topic that is shorter than it was then is that of one that was there before.
        let total = producers::known_ends(&producers).values().sum::<i64>();
        let noted = kept.noted.filter(|noted| total >= noted.total.max(1));
        let begun = noted.as_ref().and_then(|noted| noted.begun).unwrap_or(begins);
        let position = noted.map(|noted| noted.position);
        let is_cut = begins > begun && batches.is_compacted();
        let next_check = Instant::now() + CHECK_INTERVAL;
        Ok(KafkaPublisher {
            producers,
            turn: 0,
            client,
            topic: settings.topic.clone(),
            group,
            batches: Arc::clone(batches),
            batch_bytes,
            position,
            committed_at: None,
            begun: if is_cut { begins } else { begun },
            is_cut,
            is_marked: kept.is_marked,
            open: None,
            spent: false,
            next_check,
            lost_in_a_row: 0,
        })
    }

    fn producer(&self) -> &BaseProducer<Events> {
        &self.producers[self.turn]
    }

    /// Begins a transaction unless one is under way, and sends the records on their way. The next batch need not wait until the
    /// brokers have this one: the producer is idempotent and keeps the order, and the commit waits for all of them.
    fn append_in_transaction(&mut self, records: &[Record], position: u64) -> Result<(), LogError> {
        let deadline = Instant::now() + PUBLISH_TIMEOUT;
        if self.open.is_none() {
            let producer = self.producer();
            producer.begin_transaction().map_err(|error| publish_error(producer, "beginning a transaction", &error))?;
            let total_before = producers::known_ends(&self.producers).values().sum();
            self.open = Some(Open { since: Instant::now(), position, total_before });
        }
        for record in records {
            self.send(record, deadline)?;
        }
        if let Some(open) = &mut self.open {
            open.position = position;
        }
        Ok(())
    }

    /// Waits until the brokers have what was sent.
    fn await_deliveries(&self, deadline: Instant) -> Result<(), LogError> {
        if !self.drain(deadline) {
            return Err(LogError::Unavailable("the brokers did not take the records in time".to_owned()));
        }
        let producer = self.producer();
        if let Some((error, key)) = producer.context().take_failed_delivery() {
            return Err(match BatchSize::is_refusal(error.rdkafka_error_code()) {
                true => self.refused(&error, &key),
                false => publish_error(producer, "sending the records", &error),
            });
        }
        match producer.context().lost_records() {
            Some(how) => Err(LogError::Unavailable(format!("the topic has lost records, or was made anew: {how}"))),
            None => Ok(()),
        }
    }

    /// What it means that the brokers have refused a batch, of which the record with this key is the first.
    fn refused(&self, error: &KafkaError, key: &str) -> LogError {
        LogError::Refused(match self.batches.refuse(self.batch_bytes) {
            true => format!("the brokers refused a batch ({error}), and the next ones are smaller"),
            false => format!("the brokers refuse the record of {key} ({error}), and what comes after it waits"),
        })
    }

    /// Commits the transaction under way, with its position.
    fn commit_transaction(&mut self) -> Result<(), LogError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let (producer, deadline) = (self.producer(), Instant::now() + PUBLISH_TIMEOUT);
        self.await_deliveries(deadline)?;
        let Ok(offset) = i64::try_from(open.position) else {
            return Err(LogError::Refused(format!("the position {} does not fit into 63 bits", open.position)));
        };
        position::offsets(&self.topic, offset, (open.total_before, self.begun), self.is_marked)
            .and_then(|offsets| producer.send_offsets_to_transaction(&offsets, &self.group, time_left(deadline)))
            .map_err(|error| publish_error(producer, "adding the position", &error))?;
        producer
            .commit_transaction(time_left(deadline))
            .map_err(|error| publish_error(producer, "committing the transaction", &error))?;
        producer.context().answers();
        self.position = Some(open.position);
        self.committed_at = Some(Instant::now());
        (self.is_marked, self.is_cut) = (false, false);
        self.turn = (self.turn + 1) % self.producers.len();
        Ok(())
    }

    /// What a step of publishing came to. After an error this publisher is of no more use.
    fn finish(&mut self, result: Result<(), LogError>) -> Result<(), LogError> {
        let Err(error) = result else { return Ok(()) };
        self.spent = true;
        if matches!(error, LogError::Fenced(_)) {
            return Err(error);
        }
        self.abort();
        if self.producer().context().lost_records().is_some() {
            self.forget_position();
        }
        // Whatever is sent after a batch that was refused fails too, maybe before the refusal is heard.
        match self.producer().context().take_failed_delivery() {
            Some((refusal, key)) if BatchSize::is_refusal(refusal.rdkafka_error_code()) => {
                Err(self.refused(&refusal, &key))
            }
            _ => Err(error),
        }
    }

    fn check_usable(&self) -> Result<(), LogError> {
        match self.spent {
            true => Err(LogError::Unavailable("an earlier publish failed: open a new publisher".to_owned())),
            false => Ok(()),
        }
    }

    /// Commits the position again, without records, if that is due.
    fn refresh_position(&mut self) -> Result<(), LogError> {
        let is_due = self.committed_at.is_none_or(|at| at.elapsed() >= REFRESH_INTERVAL);
        // What may be lost is told of until something is published, and so is a mark of it.
        if !is_due || self.open.is_some() || self.may_lose_records() {
            return Ok(());
        }
        let Some(position) = self.position else { return Ok(()) };
        self.append_in_transaction(&[], position)?;
        self.commit_transaction()
    }

    /// What has become of the topic: whether it is gone or a partition is shorter than it was, and whether records were deleted
    /// from its start. What the brokers do not say now they say another time, such as where a partition ends that has no leader.
    fn fate(&self) -> Fate {
        let deadline = Instant::now() + CHECK_TIMEOUT;
        let ends = producers::known_ends(&self.producers);
        if topic::is_missing(&self.client, &self.topic, deadline).unwrap_or(false) {
            return Fate::Lost;
        }
        let mut begins = Some(0);
        for (partition, end) in ends {
            match watermarks(&self.client, &self.topic, partition as u32, deadline) {
                Ok((_, found)) if (found as i64) < end => return Fate::Lost,
                Ok((begin, _)) => begins = begins.map(|total| total + begin as i64),
                Err(_) => begins = None,
            }
        }
        match begins {
            Some(begins) if begins > self.begun && self.batches.is_compacted() => Fate::Cut,
            _ => Fate::Whole,
        }
    }

    /// Sets the position to 0. The brokers forget it with a topic that is deleted, but not what is committed while it goes.
    fn forget_position(&self) {
        let (producer, deadline) = (self.producer(), Instant::now() + ABORT_TIMEOUT);
        let forgotten = producer
            .begin_transaction()
            .and_then(|()| position::offsets(&self.topic, 0, (0, 0), false))
            .and_then(|offsets| producer.send_offsets_to_transaction(&offsets, &self.group, time_left(deadline)))
            .and_then(|()| producer.commit_transaction(time_left(deadline)));
        if let Err(error) = forgotten {
            // The ends that it comes with tell the next publisher the same.
            tracing::debug!(%error, "the position in the topic that was lost is not set back");
        }
    }

    /// Hands one record to librdkafka, and waits where its queue is full.
    fn send(&self, record: &Record, deadline: Instant) -> Result<(), LogError> {
        let mut message = BaseRecord::<[u8], [u8]>::to(&self.topic);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        if !record.headers.is_empty() {
            let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(KafkaHeader { key, value: Some(value) })
            });
            message.headers = Some(headers);
        }
        loop {
            match self.producer().send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again))
                    if Instant::now() < deadline =>
                {
                    message = again;
                    self.producer().poll(Duration::ZERO);
                    thread::park_timeout(DRAIN_PAUSE);
                }
                Err((error, refused)) => {
                    let key = String::from_utf8_lossy(refused.key.unwrap_or_default());
                    return Err(publish_error(self.producer(), &format!("sending the record of {key}"), &error));
                }
            }
        }
    }

    /// Hears what became of the records under way. Returns whether that was all of them in time.
    fn drain(&self, deadline: Instant) -> bool {
        loop {
            let left = self.producer().in_flight_count();
            if left == 0 {
                return true;
            }
            // One call handles one event.
            self.producer().poll(Duration::ZERO);
            if self.producer().in_flight_count() >= left {
                if Instant::now() >= deadline {
                    return false;
                }
                thread::park_timeout(DRAIN_PAUSE);
            }
        }
    }

    fn abort(&self) {
        let deadline = Instant::now() + ABORT_TIMEOUT;
        self.producer().purge(PurgeConfig::default().queue().inflight());
        self.drain(deadline);
        if let Err(error) = self.producer().abort_transaction(time_left(deadline)) {
            tracing::debug!(%error, "a transaction was left to be aborted by the next publisher");
        }
    }
}

impl Publisher for KafkaPublisher {
    fn position(&self) -> Option<u64> {
        self.position
    }

    fn may_lose_records(&self) -> bool {
        self.is_marked || self.is_cut
    }

    fn append(&mut self, records: &[Record], position: u64) -> Result<(), LogError> {
        self.check_usable()?;
        let appended = self.append_in_transaction(records, position);
        self.finish(appended)?;
        match self.commit_due() {
            Some(Duration::ZERO) => self.commit(),
            _ => Ok(()),
        }
    }

    fn commit_due(&self) -> Option<Duration> {
        self.open.as_ref().map(|open| COMMIT_INTERVAL.saturating_sub(open.since.elapsed()))
    }

    fn commit(&mut self) -> Result<(), LogError> {
        self.check_usable()?;
        let committed = self.commit_transaction();
        self.finish(committed)
    }

    fn gathering_time(&self, count: usize) -> Duration {
        if count < GATHERED { Duration::ZERO } else { GATHERING_TIME }
    }

    fn check(&mut self) -> Result<(), LogError> {
        if self.spent || Instant::now() < self.next_check {
            return Ok(());
        }
        // What librdkafka has to say is heard also while there is nothing to publish.
        for _ in 0..EVENTS_HEARD_A_CHECK {
            for producer in &self.producers {
                producer.poll(Duration::ZERO);
            }
        }
        self.next_check = Instant::now() + CHECK_INTERVAL;
        match self.fate() {
            Fate::Whole => self.lost_in_a_row = 0,
            Fate::Lost => self.lost_in_a_row += 1,
            Fate::Cut => {
                self.spent = true;
                return Err(LogError::Unavailable("records were deleted from the start of the topic".to_owned()));
            }
        }
        if self.lost_in_a_row < LOST_IN_A_ROW {
            let refreshed = if self.lost_in_a_row == 0 { self.refresh_position() } else { Ok(()) };
            return self.finish(refreshed);
        }
        self.spent = true;
        self.forget_position();
        Err(LogError::Unavailable("the topic is gone, or was made anew".to_owned()))
    }
}
