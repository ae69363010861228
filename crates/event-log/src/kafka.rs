//! The event log in Kafka, through librdkafka.
//!
//! - `publisher` publishes batches in transactions together with its position, which is kept as the committed offset
//!   of a consumer group named like the publisher. Only the latest transactional producer of a name can commit.
//! - `reader` reads all partitions and belongs to no group. It reads uncommitted: every record tells of a row that is
//!   already committed, even one in a transaction that is aborted later, and versions decide what wins.
//! - `group_reader` is an ordinary group member.
//! - `troubles` notes what keeps a partition from being read, and has what is damaged passed over.
//! - `properties` checks what an operator sets of librdkafka's own settings.
//! - `topic` makes the topic, and `topic_watch` says what is wrong with the one that is there.
//! - `batch_size` says how large a batch may be.
//!
//! Nothing here needs a broker to be there when it is opened: services start, and serve, with Kafka down.

mod batch_size;
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
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;

use self::batch_size::BatchSize;
use self::client::{Events, create, drain_events, partition_count, watermarks};
use self::group_reader::KafkaGroupReader;
pub use self::message::KafkaHeaders;
pub use self::properties::kafka_variable;
use self::publisher::KafkaPublisher;
use self::reader::KafkaReader;
use self::topic_watch::{TopicState, TopicWatch};
use crate::{EventLog, GroupReader, LogError, Positions, Publisher, Reader};

/// How long opening a reader may take: a broker that is there answers within milliseconds.
const OPEN_READER_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest name that Kafka takes for a topic.
const MAX_TOPIC_BYTES: usize = 249;

/// How long making the topic may take; whoever needs it tries again then.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(5);

/// Which Kafka, and which topic there.
#[derive(Clone)]
pub struct KafkaSettings {
    /// Bootstrap servers, `host:port` separated by commas.
    pub brokers: String,
    /// The topic's name.
    pub topic: String,
    /// More settings of librdkafka by their own names: security, and tuning. What this log's guarantees rest on (`acks`,
    /// the partitioner, what is committed when) is refused.
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
    /// Asks for metadata and watermarks; it reads nothing.
    client: Arc<BaseConsumer<Events>>,
    state: Arc<TopicState>,
    /// Watches the topic's settings once the topic is there. Whoever comes while the topic is being made waits for it.
    watch: Mutex<Option<TopicWatch>>,
    /// How large the publisher's batches may be.
    batches: Arc<BatchSize>,
}

impl KafkaLog {
    /// Checks the settings. No broker is asked, so none needs to be there.
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
        let state = Arc::<TopicState>::default();
        let batches = Arc::new(BatchSize::new(&settings, Arc::clone(&state)));
        Ok(KafkaLog { settings, client: Arc::new(client), state, watch: Mutex::default(), batches })
    }

    /// What is wrong with the topic's settings, each as one line that says what will go wrong. What cannot be known within
    /// `timeout` is such a line too.
    pub fn topic_problems(&self, timeout: Duration) -> Vec<String> {
        match topic::settings(&self.settings, deadline(timeout)) {
            Ok(found) => found.problems(&self.settings.topic),
            Err(problem) => vec![problem],
        }
    }
}

impl EventLog for KafkaLog {
    fn describe(&self) -> String {
        format!("Kafka at {}, topic {}", self.settings.brokers, self.settings.topic)
    }

    fn prepare(&self) -> Result<(), LogError> {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        // Each time: it may have been deleted since, and whoever comes here has just lost it.
        topic::make_if_missing(&self.settings, &self.client, deadline(PREPARE_TIMEOUT))?;
        match &*watch {
            Some(watch) => watch.look(),
            None => {
                let (settings, client, state) = (self.settings.clone(), self.client.clone(), self.state.clone());
                match TopicWatch::start(settings, client, state) {
                    Ok(started) => *watch = Some(started),
                    Err(error) => tracing::warn!(%error, "the topic's settings are not looked at"),
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
        Ok(Box::new(KafkaPublisher::open(&self.settings, Arc::clone(&self.client), &self.batches, name)?))
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

impl KafkaLog {
    /// Where each partition begins and ends.
    fn watermarks(&self, timeout: Duration) -> Result<impl Iterator<Item = (u32, (u64, u64))>, LogError> {
        drain_events(&self.client);
        let (deadline, topic) = (deadline(timeout), &self.settings.topic);
        let count = partition_count(&self.client, topic, deadline)?;
        let watermarks = (0..count).map(|partition| watermarks(&self.client, topic, partition, deadline));
        Ok((0..count).zip(watermarks.collect::<Result<Vec<_>, _>>()?))
    }
}

/// The moment `timeout` from now. librdkafka counts milliseconds in 32 bits, so no wait is longer than an hour.
fn deadline(timeout: Duration) -> Instant {
    const LONGEST_WAIT: Duration = Duration::from_secs(3600);
    Instant::now() + timeout.min(LONGEST_WAIT)
}
