//! The event log in Kafka, through librdkafka.
//!
//! - `publisher` publishes batches in transactions together with its position, which is kept as the committed offset
//!   of a consumer group named like the publisher. Only the latest transactional producer of a name can commit.
//! - `reader` reads all partitions and belongs to no group. It reads uncommitted: every record tells of a row that is
//!   already committed, even one in a transaction that is aborted later, and versions decide what wins.
//! - `group_reader` is an ordinary group member.
//! - `properties` checks what an operator sets of librdkafka's own settings.
//! - `topic` makes the topic, or says what is wrong with the one that is there.
//!
//! Nothing here needs a broker to be there when it is opened: services start, and serve, with Kafka down.

mod client;
mod group_reader;
mod message;
mod position;
mod producers;
mod properties;
mod publisher;
mod reader;
mod topic;

use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};

use self::client::{Events, create, drain_events, log_error, partition_count, time_left};
use self::group_reader::KafkaGroupReader;
pub use self::message::KafkaHeaders;
pub use self::properties::kafka_variable;
use self::publisher::KafkaPublisher;
use self::reader::KafkaReader;
use crate::{EventLog, GroupReader, LogError, Positions, Publisher, Reader};

/// How long opening a reader may take: a broker that is there answers within milliseconds.
const OPEN_READER_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest name that Kafka takes for a topic.
const MAX_TOPIC_BYTES: usize = 249;

/// How long making the topic may take; whoever needs it tries again then.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the brokers may take to tell the topic's settings. Those that do not let us know say nothing at all.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// Whether the topic has been looked at. Whoever comes while that is done waits for it.
    looked_at: Mutex<bool>,
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
        Ok(KafkaLog { settings, client: Arc::new(client), looked_at: Mutex::new(false) })
    }

    /// What is wrong with the topic's settings, as one line that says what will go wrong; `None` if nothing is. What
    /// cannot be known within `timeout` is such a line too.
    pub fn topic_warning(&self, timeout: Duration) -> Result<Option<String>, LogError> {
        topic::policy_warning(&self.settings, deadline(timeout))
    }

    /// Looks at the topic's settings without keeping anyone waiting: brokers that may not say take their time.
    fn warn_of_topic(&self) {
        let settings = self.settings.clone();
        let look = move || match topic::policy_warning(&settings, deadline(LOOK_TIMEOUT)) {
            Ok(None) => {}
            Ok(Some(warning)) => tracing::warn!("{warning}"),
            Err(error) => tracing::warn!(%error, "the topic's settings were not looked at"),
        };
        if let Err(error) = Builder::new().name("topic-look".to_owned()).spawn(look) {
            tracing::warn!(%error, "the topic's settings were not looked at");
        }
    }
}

impl EventLog for KafkaLog {
    fn describe(&self) -> String {
        format!("Kafka at {}, topic {}", self.settings.brokers, self.settings.topic)
    }

    fn prepare(&self) -> Result<(), LogError> {
        let mut looked_at = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        // Each time: it may have been deleted since, and whoever comes here has just lost it.
        topic::make_if_missing(&self.settings, &self.client, deadline(PREPARE_TIMEOUT))?;
        if !std::mem::replace(&mut *looked_at, true) {
            self.warn_of_topic();
        }
        Ok(())
    }

    fn publisher(&self, name: &str) -> Result<Box<dyn Publisher>, LogError> {
        drain_events(&self.client);
        Ok(Box::new(KafkaPublisher::open(&self.settings, Arc::clone(&self.client), name)?))
    }

    fn reader(&self, from: &Positions) -> Result<Box<dyn Reader>, LogError> {
        drain_events(&self.client);
        let until = deadline(OPEN_READER_TIMEOUT);
        Ok(Box::new(KafkaReader::open(&self.settings, Arc::clone(&self.client), from, until)?))
    }

    fn group_reader(&self, group: &str) -> Result<Box<dyn GroupReader>, LogError> {
        Ok(Box::new(KafkaGroupReader::open(&self.settings, group)?))
    }

    fn end_offsets(&self, timeout: Duration) -> Result<Positions, LogError> {
        drain_events(&self.client);
        let deadline = deadline(timeout);
        let topic = &self.settings.topic;
        (0..partition_count(&self.client, topic, deadline)?)
            .map(|partition| {
                let (_low, high) = self
                    .client
                    .fetch_watermarks(topic, partition as i32, time_left(deadline))
                    .map_err(|error| log_error("asking where the topic ends", &error))?;
                Ok((partition, high.max(0) as u64))
            })
            .collect()
    }
}

/// The moment `timeout` from now. librdkafka counts milliseconds in 32 bits, so no wait is longer than an hour.
fn deadline(timeout: Duration) -> Instant {
    const LONGEST_WAIT: Duration = Duration::from_secs(3600);
    Instant::now() + timeout.min(LONGEST_WAIT)
}
