//! Publishing to Kafka in transactions.
//!
//! - Fencing: opening a publisher initializes its transactional ids, after which the brokers reject the earlier producers.
//! - Position: it is stored as the committed offset of a consumer group called like the publisher, in the transaction of its records
//!   (`position`). Brokers forget an offset after `offsets.retention.minutes`, so an idle publisher commits its position again.
//! - Consecutive batches share a transaction of about 100 ms, because committing takes longer than a batch. Views read uncommitted
//!   and do not wait for the commit.
//! - A topic that is deleted and recreated accepts the next batch without an error, but its offsets restart at 0. So the publisher
//!   compares offsets with the earlier ones: before each commit, every few seconds in between, and when it opens. If they went back, the
//!   position is void: the next publisher reports no position, and the relay publishes the current state of every account.
//! - Records deleted from the topic's start show by the partitions' start offsets, which compaction never moves. A publisher that finds
//!   them moved reports that the log may have lost records.
//!
//! The producers are polled here. The polling thread of librdkafka's binding would delay a commit by up to 100 ms.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header as KafkaHeader, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};

use super::client::{Events, partition_count, publish_error, time_left, watermarks};
use super::topic_watch::{TopicState, is_refusal};
use super::{KafkaSettings, position, producers, topic};
use crate::{LogError, Publisher, Record, position_out_of_range, spent_publisher};

/// How long opening may take. A new transactional producer takes about half a second to get its id.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long librdkafka may take to accept a batch, and the brokers to commit a transaction.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a transaction stays open for further batches. Consumers that read committed wait that much longer. It is the interval of
/// Kafka Streams with exactly-once semantics.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// How long to gather records under load: a batch costs this process and the brokers as much as twenty requests do.
const GATHERING_TIME: Duration = Duration::from_millis(10);
/// The size of a batch that counts as load.
const GATHERING_MIN_RECORDS: usize = 16;
/// How long an abort may take. Opening the next publisher aborts the transaction as well.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a producer is polled while records are in flight. librdkafka's own blocking poll never returns early.
const DRAIN_PAUSE: Duration = Duration::from_micros(100);
/// How often a publisher checks, between two transactions, whether the topic still has its records.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long such a check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// How many checks in a row must find records lost: a new leader may report too low an end at first.
const MIN_LOST_CHECKS: u32 = 2;
/// How often an idle publisher commits its position again. Brokers keep it for a minute at least, and for a week by default.
const REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// The most events of librdkafka that a check handles.
const EVENTS_A_CHECK: usize = 1_000;

pub(super) struct KafkaPublisher {
    /// They take turns, a transaction each.
    producers: [BaseProducer<Events>; 2],
    /// The index of the producer whose turn it is.
    turn: usize,
    /// Fetches the topic's ends. A producer would report where open transactions of others begin.
    client: Arc<BaseConsumer<Events>>,
    topic: String,
    group: ConsumerGroupMetadata,
    state: Arc<TopicState>,
    /// The batch size of the producers.
    batch_bytes: u64,
    position: Option<u64>,
    /// Stored with the next commit.
    note: String,
    /// When this publisher last committed the position.
    committed_at: Option<Instant>,
    /// The sum of the partitions' start offsets when the log last had the state of every account.
    starts: i64,
    /// Whether records were deleted from the topic's start since then.
    is_cut: bool,
    /// Whether the position carries the mark that transactions may have been aborted (`position`). The next commit removes it.
    is_marked: bool,
    /// The open transaction.
    open: Option<Open>,
    /// Set after an error. Only the brokers know whether the transaction was committed; a new publisher asks them.
    spent: bool,
    next_check: Instant,
    /// How many checks in a row have found records lost.
    lost_checks: u32,
}

/// A transaction that has records and no position yet.
struct Open {
    since: Instant,
    position: u64,
    /// The sum of the partitions' ends before the transaction. In a recreated topic the sum is smaller.
    ends_before: i64,
}

/// The condition of the topic's records.
enum Condition {
    Whole,
    /// The topic is missing or was recreated.
    Lost,
    /// Records were deleted from its start.
    Cut,
}

impl KafkaPublisher {
    pub(super) fn open(
        settings: &KafkaSettings,
        client: Arc<BaseConsumer<Events>>,
        state: Arc<TopicState>,
        name: &str,
    ) -> Result<KafkaPublisher, LogError> {
        let deadline = Instant::now() + OPEN_TIMEOUT;
        let partitions = partition_count(&client, &settings.topic, deadline)?;
        let batch_bytes = state.batch_bytes();
        let name = position::group_name(settings, name);
        let producers = producers::open(settings, &name, batch_bytes, deadline)?;
        let (group, stored) = position::fetch(settings, &name, (&producers, partitions), deadline)?;
        let mut starts = 0;
        for partition in 0..partitions {
            let (start, end) = watermarks(&client, &settings.topic, partition, deadline)?;
            starts += start as i64;
            producers.iter().for_each(|producer| producer.context().set_end(partition as i32, end as i64));
        }
        let ends = producers::known_ends(&producers).values().sum();
        let position = stored.position.filter(|position| position.is_valid(ends));
        let known_starts = position.as_ref().and_then(|position| position.starts).unwrap_or(starts);
        let is_cut = starts > known_starts && state.is_compacted();
        Ok(KafkaPublisher {
            producers,
            turn: 0,
            client,
            topic: settings.topic.clone(),
            group,
            state,
            batch_bytes,
            position: position.as_ref().map(|position| position.value),
            note: position.map(|position| position.note).unwrap_or_default(),
            committed_at: None,
            starts: if is_cut { starts } else { known_starts },
            is_cut,
            is_marked: stored.is_marked,
            open: None,
            spent: false,
            next_check: Instant::now() + CHECK_INTERVAL,
            lost_checks: 0,
        })
    }

    fn producer(&self) -> &BaseProducer<Events> {
        &self.producers[self.turn]
    }

    /// Begins a transaction unless one is open, and sends the records. The next batch need not wait for their delivery: the producer
    /// is idempotent and keeps the order, and the commit waits for all of them.
    fn append_in_transaction(&mut self, records: &[Record], position: u64) -> Result<(), LogError> {
        let deadline = Instant::now() + PUBLISH_TIMEOUT;
        if self.open.is_none() {
            let producer = self.producer();
            producer.begin_transaction().map_err(|error| publish_error(producer, "beginning a transaction", &error))?;
            let ends_before = producers::known_ends(&self.producers).values().sum();
            self.open = Some(Open { since: Instant::now(), position, ends_before });
        }
        for record in records {
            self.send(record, deadline)?;
        }
        if let Some(open) = &mut self.open {
            open.position = position;
        }
        Ok(())
    }

    /// Waits until the brokers have acknowledged what was sent.
    fn await_deliveries(&self, deadline: Instant) -> Result<(), LogError> {
        if !self.drain(deadline) {
            return Err(LogError::Unavailable("the brokers did not take the records in time".to_owned()));
        }
        let producer = self.producer();
        if let Some((error, key)) = producer.context().take_failed_delivery() {
            return Err(match is_refusal(error.rdkafka_error_code()) {
                true => self.refusal(&error, &key),
                false => publish_error(producer, "sending the records", &error),
            });
        }
        match producer.context().lost_records() {
            Some(how) => Err(LogError::Unavailable(format!("the topic has lost records, or was recreated: {how}"))),
            None => Ok(()),
        }
    }

    /// The error that the brokers refuse a batch whose first record has `key`.
    fn refusal(&self, error: &KafkaError, key: &str) -> LogError {
        LogError::Refused(match self.state.record_refusal(self.batch_bytes) {
            true => format!("the brokers refused a batch ({error}), and the next ones are smaller"),
            false => format!("the brokers refuse the record of {key} ({error}), and later records wait"),
        })
    }

    /// Commits the open transaction with its position.
    fn commit_transaction(&mut self) -> Result<(), LogError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let (producer, deadline) = (self.producer(), Instant::now() + PUBLISH_TIMEOUT);
        self.await_deliveries(deadline)?;
        let offset = i64::try_from(open.position).map_err(|_| position_out_of_range(open.position))?;
        position::offsets(&self.topic, (offset, &self.note), (open.ends_before, self.starts), self.is_marked)
            .and_then(|offsets| producer.send_offsets_to_transaction(&offsets, &self.group, time_left(deadline)))
            .map_err(|error| publish_error(producer, "adding the position", &error))?;
        producer
            .commit_transaction(time_left(deadline))
            .map_err(|error| publish_error(producer, "committing the transaction", &error))?;
        producer.context().record_answer();
        self.position = Some(open.position);
        self.committed_at = Some(Instant::now());
        (self.is_marked, self.is_cut) = (false, false);
        self.turn = (self.turn + 1) % self.producers.len();
        Ok(())
    }

    /// Makes this publisher unusable if `result` is an error, and, unless it is fenced, aborts the transaction.
    fn finish(&mut self, result: Result<(), LogError>) -> Result<(), LogError> {
        let Err(error) = result else { return Ok(()) };
        self.spent = true;
        if matches!(error, LogError::Fenced(_)) {
            return Err(error);
        }
        self.abort();
        if self.producer().context().lost_records().is_some() {
            self.reset_position();
        }
        // After a refusal later records fail too, and their error may come first.
        match self.producer().context().take_failed_delivery() {
            Some((refused, key)) if is_refusal(refused.rdkafka_error_code()) => Err(self.refusal(&refused, &key)),
            _ => Err(error),
        }
    }

    fn check_usable(&self) -> Result<(), LogError> {
        if self.spent { Err(spent_publisher()) } else { Ok(()) }
    }

    /// Commits the position again, without records, if that is due.
    fn refresh_position(&mut self) -> Result<(), LogError> {
        let is_due = self.committed_at.is_none_or(|at| at.elapsed() >= REFRESH_INTERVAL);
        // A commit would end `may_lose_records`.
        if !is_due || self.open.is_some() || self.may_lose_records() {
            return Ok(());
        }
        let Some(position) = self.position else { return Ok(()) };
        self.append_in_transaction(&[], position)?;
        self.commit_transaction()
    }

    /// Checks the topic. What the brokers cannot say now, such as the end of a partition without a leader, waits for the next check.
    fn condition(&self) -> Condition {
        let deadline = Instant::now() + CHECK_TIMEOUT;
        if topic::is_missing(&self.client, &self.topic, deadline).unwrap_or(false) {
            return Condition::Lost;
        }
        let mut starts = Some(0);
        for (partition, known_end) in producers::known_ends(&self.producers) {
            match watermarks(&self.client, &self.topic, partition as u32, deadline) {
                Ok((_, end)) if (end as i64) < known_end => return Condition::Lost,
                Ok((start, _)) => starts = starts.map(|sum| sum + start as i64),
                Err(_) => starts = None,
            }
        }
        match starts {
            Some(starts) if starts > self.starts && self.state.is_compacted() => Condition::Cut,
            _ => Condition::Whole,
        }
    }

    /// Commits the position 0. The brokers forget the position with a topic that is deleted, but not one that is committed during the
    /// deletion.
    fn reset_position(&self) {
        let (producer, deadline) = (self.producer(), Instant::now() + ABORT_TIMEOUT);
        let reset = producer
            .begin_transaction()
            .and_then(|()| position::offsets(&self.topic, (0, ""), (0, 0), false))
            .and_then(|offsets| producer.send_offsets_to_transaction(&offsets, &self.group, time_left(deadline)))
            .and_then(|()| producer.commit_transaction(time_left(deadline)));
        if let Err(error) = reset {
            // The next publisher finds the position void by the ends that are stored with it.
            tracing::debug!(%error, "the position in a topic that was lost is not reset");
        }
    }

    /// Hands a record to librdkafka, and waits while its queue is full.
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

    /// Handles delivery reports until no record is in flight. Returns whether that was before `deadline`.
    fn drain(&self, deadline: Instant) -> bool {
        loop {
            let in_flight = self.producer().in_flight_count();
            if in_flight == 0 {
                return true;
            }
            // A call handles one event.
            self.producer().poll(Duration::ZERO);
            if self.producer().in_flight_count() >= in_flight {
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
            tracing::debug!(%error, "the transaction is left for the next publisher to abort");
        }
    }
}

impl Publisher for KafkaPublisher {
    fn position(&self) -> Option<u64> {
        self.position
    }

    fn note(&self) -> &str {
        &self.note
    }

    fn set_note(&mut self, note: String) {
        self.note = note;
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
        if count < GATHERING_MIN_RECORDS { Duration::ZERO } else { GATHERING_TIME }
    }

    fn check(&mut self) -> Result<(), LogError> {
        if self.spent || Instant::now() < self.next_check {
            return Ok(());
        }
        // Errors are reported while idle, too.
        for _ in 0..EVENTS_A_CHECK {
            for producer in &self.producers {
                producer.poll(Duration::ZERO);
            }
        }
        self.next_check = Instant::now() + CHECK_INTERVAL;
        match self.condition() {
            Condition::Whole => self.lost_checks = 0,
            Condition::Lost => self.lost_checks += 1,
            Condition::Cut => {
                self.spent = true;
                return Err(LogError::Unavailable("records were deleted from the start of the topic".to_owned()));
            }
        }
        if self.lost_checks < MIN_LOST_CHECKS {
            let refreshed = if self.lost_checks == 0 { self.refresh_position() } else { Ok(()) };
            return self.finish(refreshed);
        }
        self.spent = true;
        self.reset_position();
        Err(LogError::Unavailable("the topic was deleted, or was recreated".to_owned()))
    }
}
