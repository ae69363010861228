//! The Kafka of a test: librdkafka's mock cluster inside the test process, or, where `TANDEM_TEST_KAFKA_BROKERS` names one,
//! Apache Kafka with a topic and a group of the test's own.
//!
//! The mock answers the requests of a transaction and does nothing with them: no offset of a transaction is stored, and
//! nobody is fenced. So a relay that is restarted begins at the oldest event that is still in the outbox. A group's first
//! member waits three seconds for others, and an empty fetch is answered after its whole wait, whatever comes meanwhile.

pub(crate) mod admin;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use account_events::AccountEvent;
use event_log::{EventLog, KafkaLog, KafkaSettings, Record, RecordRef};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use test_harness::{DEADLINE, KAFKA_BROKERS, make_topic_that_deletes, unique_name, wait_until};

use crate::events::Seen;

/// What a topic has that is made without saying more.
pub(crate) const PARTITIONS: u32 = 3;

/// How many records are passed over without a look at the clock.
const PASSED_OVER: usize = 1_000;

/// The topic's name where none is configured (docs/api.md).
const DEFAULT_TOPIC: &str = "account-events";

pub(crate) struct Kafka {
    /// `None` if it is Apache Kafka.
    mock: Option<MockCluster<'static, DefaultProducerContext>>,
    pub(crate) brokers: String,
    pub(crate) topic: String,
    pub(crate) group: String,
}

impl Kafka {
    /// Apache Kafka, if there is one.
    pub(crate) fn real() -> Option<Self> {
        let name = unique_name();
        Some(Kafka { mock: None, brokers: std::env::var(KAFKA_BROKERS).ok()?, topic: name.clone(), group: name })
    }

    /// The mock cluster, with one broker and the seed's topic.
    pub(crate) fn mock() -> Self {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic(DEFAULT_TOPIC, PARTITIONS as i32, 1).expect("a topic");
        let (topic, group) = (DEFAULT_TOPIC.to_owned(), card_service::DEFAULT_GROUP.to_owned());
        Kafka { brokers: cluster.bootstrap_servers(), mock: Some(cluster), topic, group }
    }

    pub(crate) fn is_mock(&self) -> bool {
        self.mock.is_some()
    }

    /// Has every answer of the mock take this long.
    pub(crate) fn set_round_trip_time(&self, time: Duration) {
        self.mock.as_ref().expect("the mock").broker_round_trip_time(1, time).expect("a broker");
    }

    /// For the environment of a process. The mock's topic and group are those that need no saying.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![("KAFKA_BROKERS", self.brokers.clone())];
        if !self.is_mock() {
            settings.extend([("KAFKA_TOPIC", self.topic.clone()), ("KAFKA_GROUP_ID", self.group.clone())]);
        }
        settings
    }

    /// Makes the topic as the seed's own set-up does: one that takes records without a key, and deletes old ones.
    pub(crate) fn make_topic_that_deletes(&self) {
        if self.is_mock() {
            return;
        }
        make_topic_that_deletes(&self.brokers, &self.topic);
    }

    /// The topic, for a service in this process, or for the test to look at. It is made if it is missing.
    pub(crate) fn log(&self) -> Arc<dyn EventLog> {
        let extra = if self.is_mock() { vec![("fetch.wait.max.ms".to_owned(), "20".to_owned())] } else { Vec::new() };
        let settings = KafkaSettings { brokers: self.brokers.clone(), topic: self.topic.clone(), extra };
        let log = KafkaLog::open(settings).expect("settings that librdkafka takes");
        log.prepare().expect("a topic");
        Arc::new(log)
    }

    /// Publishes `records`.
    pub(crate) fn publish(&self, records: &[Record]) {
        let mut publisher = self.log().publisher(&format!("{}-test", self.topic)).expect("Kafka takes publishers");
        publisher.publish(records, 1).expect("Kafka takes records");
    }

    /// The position of the card closers' group in each partition.
    pub(crate) fn committed(&self) -> BTreeMap<u32, u64> {
        let consumer = consumer(&self.brokers, &self.group, Isolation::Committed);
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(&self.topic, 0, PARTITIONS as i32 - 1);
        let committed = consumer.committed_offsets(asked, DEADLINE).expect("the group's offsets");
        let offset = |offset| if let Offset::Offset(offset) = offset { offset as u64 } else { 0 };
        committed.elements().iter().map(|element| (element.partition() as u32, offset(element.offset()))).collect()
    }

    /// The topic as foreign consumers see it who read what is committed, each partition in order.
    pub(crate) fn read_committed(&self) -> Vec<Seen> {
        read_topic(&self.brokers, &self.topic, Isolation::Committed)
    }
}

/// Which records a consumer is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// What foreign consumers see.
    Committed,
    /// All that the brokers keep, records of transactions that were aborted too: what compaction goes by.
    Uncommitted,
}

/// The topic, each partition in order, up to where it ends now.
///
/// That end is asked for uncommitted, whatever is read. Asked for committed, it lies before the first transaction that has no
/// markers yet, and the brokers write those after they have answered the commit: the last events would be missing.
pub(crate) fn read_topic(brokers: &str, topic: &str, isolation: Isolation) -> Vec<Seen> {
    let consumer = consumer(brokers, "foreign", isolation);
    let (mut assigned, ends) = (TopicPartitionList::new(), ends(brokers, topic));
    for partition in ends.keys() {
        assigned.add_partition_offset(topic, *partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&assigned).expect("the partitions");
    let mut seen = Vec::new();
    wait_until("all of the topic is read", || {
        while let Some(message) = consumer.poll(Duration::from_millis(20)) {
            let message = message.expect("the topic can be read");
            let record = RecordRef::from(&message);
            seen.push(Seen::of(record, AccountEvent::decode(record).expect("an account event")));
        }
        // Behind the markers of transactions too.
        let reached = consumer.position().expect("positions");
        let is_read = |(partition, end): (&i32, &i64)| {
            let reached = reached.find_partition(topic, *partition).map(|element| element.offset());
            *end == 0 || matches!(reached, Some(Offset::Offset(reached)) if reached >= *end)
        };
        ends.iter().all(is_read).then_some(())
    });
    seen
}

/// Where each partition ends, with what is not committed yet.
fn ends(brokers: &str, topic: &str) -> BTreeMap<i32, i64> {
    let consumer = consumer(brokers, "foreign", Isolation::Uncommitted);
    let end = |partition| consumer.fetch_watermarks(topic, partition, DEADLINE).expect("where it ends").1;
    partitions(&consumer, topic).map(|partition| (partition, end(partition))).collect()
}

/// The partitions that the topic has now.
fn partitions(consumer: &BaseConsumer, topic: &str) -> impl Iterator<Item = i32> {
    let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).expect("the topic is there");
    0..metadata.topics()[0].partitions().len() as i32
}

/// What comes into a topic from now on, as those see it who read what is committed.
pub(crate) struct Tail(BaseConsumer);

impl Tail {
    pub(crate) fn of(brokers: &str, topic: &str) -> Self {
        let consumer = consumer(brokers, "foreign", Isolation::Committed);
        let mut assigned = TopicPartitionList::new();
        for partition in partitions(&consumer, topic) {
            // Where it ends now: the consumer itself would look later.
            let (_, end) = consumer.fetch_watermarks(topic, partition, DEADLINE).expect("where it ends");
            assigned.add_partition_offset(topic, partition, Offset::Offset(end)).expect("a partition");
        }
        consumer.assign(&assigned).expect("the partitions");
        Tail(consumer)
    }

    /// Waits until a record with this key comes. What comes before it may be a backlog, and is passed over at once.
    pub(crate) fn wait_for(&self, key: &str) {
        wait_until("the record is in the topic", || {
            for _ in 0..PASSED_OVER {
                let message = self.0.poll(Duration::from_millis(20))?.expect("the topic can be read");
                if message.key() == Some(key.as_bytes()) {
                    return Some(());
                }
            }
            None
        });
    }
}

fn consumer(brokers: &str, group: &str, isolation: Isolation) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", group).set("enable.auto.commit", "false");
    let isolation = if isolation == Isolation::Committed { "read_committed" } else { "read_uncommitted" };
    config.set("isolation.level", isolation).create().expect("a consumer")
}
