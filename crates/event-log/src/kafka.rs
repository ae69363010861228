//! The event log in Kafka, through librdkafka.
//!
//! - `publisher` publishes in transactions, which also fence earlier publishers. `producers` opens its two producers. `position`
//!   stores its position as the committed offset of a consumer group, in the same transaction as the records.
//! - `reader` reads all partitions, outside of any group. It reads uncommitted (decision 0004). `message` takes messages in batches.
//!   `troubles` tracks partitions that cannot be read, and skips batches that cannot be decoded.
//! - `group_reader` reads as a member of a consumer group.
//! - `topic` creates the topic and reads its settings; `topic_watch` warns of harmful settings and decides how large a batch may be.
//! - `client` is common to all clients of librdkafka, and `properties` checks an operator's settings of librdkafka.
//!
//! Opening the log needs no broker: services start and serve while Kafka is down.

mod client;
mod group_reader;
mod message;
mod position;
mod producers;
mod properties;
mod publisher;
mod reader;
mod topic;
mod topic_watch;
mod troubles;

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::consumer::BaseConsumer;

use self::client::{Events, create, drain_events, partition_count, time_left, watermarks};
use self::group_reader::KafkaGroupReader;
pub use self::message::KafkaHeaders;
pub use self::properties::kafka_variable;
use self::publisher::KafkaPublisher;
use self::reader::KafkaReader;
use self::topic_watch::{TopicState, TopicWatch};
use crate::{Committed, EventLog, GroupReader, LogError, Positions, Publisher, Reader, deadline};

/// How long opening a reader may take. Reachable brokers answer within milliseconds.
const OPEN_READER_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest topic name that Kafka accepts.
const MAX_TOPIC_BYTES: usize = 249;
/// How long creating the topic may take before the caller retries.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(5);

/// Which Kafka, and which topic.
#[derive(Clone)]
pub struct KafkaSettings {
    /// Bootstrap servers, `host:port` separated by commas.
    pub brokers: String,
    /// The topic's name.
    pub topic: String,
    /// Settings of librdkafka by their own names, for security and tuning. Settings on which this log's guarantees rest (`acks`, the
    /// partitioner, commits) are refused.
    pub extra: Vec<(String, String)>,
}

impl Debug for KafkaSettings {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        // Values may be secrets.
        let extra: Vec<_> = self.extra.iter().map(|(name, _)| name).collect();
        out.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("extra", &extra)
            .finish()
    }
}

/// A topic in Kafka.
pub struct KafkaLog {
    settings: KafkaSettings,
    /// Fetches metadata and watermarks. It reads no records.
    client: Arc<BaseConsumer<Events>>,
    state: Arc<TopicState>,
    /// Reads what publishers stored, for one name.
    committed: Mutex<Option<(String, BaseConsumer<Events>)>>,
    /// Started once the topic exists. The lock is held while the topic is created.
    watch: Mutex<Option<TopicWatch>>,
}

impl KafkaLog {
    /// Checks the settings. Contacts no broker.
    pub fn open(settings: KafkaSettings) -> Result<KafkaLog, LogError> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=MAX_TOPIC_BYTES).contains(&settings.topic.len()) || !settings.topic.bytes().all(valid) {
            return Err(LogError::Refused(format!(
                "KAFKA_TOPIC {:?} is no name for a topic: 1 to {MAX_TOPIC_BYTES} of A-Z a-z 0-9 . _ -",
                settings.topic
            )));
        }
        properties::check(&settings)?;
        let client = create(&settings, "metadata", &[], &[("isolation.level", "read_uncommitted")])?;
        let state = TopicState::new(&settings);
        Ok(KafkaLog {
            settings,
            client: Arc::new(client),
            state: Arc::new(state),
            committed: Mutex::default(),
            watch: Mutex::default(),
        })
    }

    /// The problems of the topic's settings, each as one line that says what will go wrong. Settings that cannot be read within
    /// `timeout` are a problem too.
    pub fn topic_problems(&self, timeout: Duration) -> Vec<String> {
        match topic::settings(&self.settings, deadline(timeout)) {
            Ok(found) => found.problems(&self.settings.topic),
            Err(problem) => vec![problem],
        }
    }

    /// The start and end of each partition.
    fn watermarks(&self, timeout: Duration) -> Result<impl Iterator<Item = (u32, (u64, u64))>, LogError> {
        drain_events(&self.client);
        let (deadline, topic) = (deadline(timeout), &self.settings.topic);
        let count = partition_count(&self.client, topic, deadline)?;
        let watermarks = (0..count).map(|partition| watermarks(&self.client, topic, partition, deadline));
        Ok((0..count).zip(watermarks.collect::<Result<Vec<_>, _>>()?))
    }
}

impl EventLog for KafkaLog {
    fn describe(&self) -> String {
        format!("Kafka at {}, topic {}", self.settings.brokers, self.settings.topic)
    }

    fn prepare(&self) -> Result<(), LogError> {
        let mut watch = self.watch.lock();
        // Each time, because the topic may have been deleted since.
        topic::create_if_missing(&self.settings, &self.client, deadline(PREPARE_TIMEOUT))?;
        match &*watch {
            Some(watch) => watch.request_check(),
            None => {
                let (settings, client, state) = (self.settings.clone(), self.client.clone(), self.state.clone());
                match TopicWatch::start(settings, client, state) {
                    Ok(started) => *watch = Some(started),
                    Err(error) => tracing::warn!(%error, "no thread to check the topic's settings"),
                }
            }
        }
        Ok(())
    }

    fn warnings(&self) -> Vec<String> {
        self.state.problems()
    }

    fn publisher(&self, name: &str) -> Result<Box<dyn Publisher>, LogError> {
        drain_events(&self.client);
        Ok(Box::new(KafkaPublisher::open(&self.settings, Arc::clone(&self.client), Arc::clone(&self.state), name)?))
    }

    fn committed(&self, name: &str, timeout: Duration) -> Result<Option<Committed>, LogError> {
        let (group, until) = (position::group_name(&self.settings, name), deadline(timeout));
        let mut committed = self.committed.lock();
        let (_, consumer) = match committed.take() {
            Some(kept) if kept.0 == group => committed.insert(kept),
            // It must not wait for a transaction that is open: whoever calls fences nobody.
            _ => {
                let consumer = position::consumer(&self.settings, &group, "read_uncommitted")?;
                committed.insert((group, consumer))
            }
        };
        drain_events(consumer);
        let Some(stored) = position::read(consumer, &self.settings.topic, until)?.position else { return Ok(None) };
        let ends = self.watermarks(time_left(until))?.map(|(_, (_, end))| end as i64).sum();
        let position = Some(stored).filter(|stored| stored.is_valid(ends));
        Ok(position.map(|stored| Committed { position: stored.value, note: stored.note }))
    }

    fn reader(&self, from: &Positions) -> Result<Box<dyn Reader>, LogError> {
        drain_events(&self.client);
        let until = deadline(OPEN_READER_TIMEOUT);
        Ok(Box::new(KafkaReader::open(&self.settings, Arc::clone(&self.client), from, until)?))
    }

    fn group_reader(&self, group: &str) -> Result<Box<dyn GroupReader>, LogError> {
        Ok(Box::new(KafkaGroupReader::open(&self.settings, group)?))
    }

    fn start_offsets(&self, timeout: Duration) -> Result<Positions, LogError> {
        Ok(self.watermarks(timeout)?.map(|(partition, (low, _))| (partition, low)).collect())
    }

    fn end_offsets(&self, timeout: Duration) -> Result<Positions, LogError> {
        Ok(self.watermarks(timeout)?.map(|(partition, (_, high))| (partition, high)).collect())
    }
}
