//! Kafka inside the test process: librdkafka's mock cluster.
//!
//! It answers the requests of a transaction and does nothing with them: no offset of a transaction is stored, and nobody
//! is fenced. So a relay that is restarted begins at the oldest event that is still in the outbox. A group's first member
//! waits three seconds for others, and an empty fetch is answered after its whole wait, whatever comes meanwhile.

use std::sync::Arc;
use std::time::Duration;

use event_log::{EventLog, KafkaLog, KafkaSettings, Record};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{Offset, TopicPartitionList};
use test_harness::DEADLINE;

pub(crate) const TOPIC: &str = "account-events";
pub(crate) const PARTITIONS: u32 = 3;

pub(crate) struct MockKafka(MockCluster<'static, DefaultProducerContext>);

impl MockKafka {
    /// One broker, with the seed's topic.
    pub(crate) fn start() -> Self {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic(TOPIC, PARTITIONS as i32, 1).expect("a topic");
        MockKafka(cluster)
    }

    /// Has every answer take this long.
    pub(crate) fn set_round_trip_time(&self, time: Duration) {
        self.0.broker_round_trip_time(1, time).expect("a broker");
    }

    /// For `KAFKA_BROKERS`.
    pub(crate) fn brokers(&self) -> String {
        self.0.bootstrap_servers()
    }

    /// The topic, for a service in this process, or for the test to look at.
    pub(crate) fn log(&self) -> Arc<dyn EventLog> {
        let extra = vec![("fetch.wait.max.ms".to_owned(), "20".to_owned())];
        let settings = KafkaSettings { brokers: self.brokers(), topic: TOPIC.to_owned(), extra };
        Arc::new(KafkaLog::open(settings).expect("settings that librdkafka takes"))
    }

    /// Publishes `records`.
    pub(crate) fn publish(&self, records: &[Record]) {
        let mut publisher = self.log().publisher("test").expect("the mock takes publishers");
        publisher.publish(records, 1).expect("the mock takes records");
    }

    /// How many records of the topic `group` has committed.
    pub(crate) fn committed(&self, group: &str) -> u64 {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers()).set("group.id", group);
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(TOPIC, 0, PARTITIONS as i32 - 1);
        let committed = consumer.committed_offsets(asked, DEADLINE).expect("the group's offsets");
        let offset = |offset| if let Offset::Offset(offset) = offset { offset as u64 } else { 0 };
        committed.elements().iter().map(|element| offset(element.offset())).sum()
    }
}
