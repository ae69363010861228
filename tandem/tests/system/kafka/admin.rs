//! What an operator does to a topic by Kafka's admin protocol.

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};
use test_harness::{DEADLINE, wait_until};
use tokio::runtime::Runtime;

use super::{Isolation, PARTITIONS, consumer, partitions};

/// The id of the only broker there is.
const BROKER: i32 = 1;

pub(crate) struct Admin {
    client: AdminClient<DefaultClientContext>,
    options: AdminOptions,
    runtime: Runtime,
    brokers: String,
    topic: String,
}

impl Admin {
    pub(crate) fn of(brokers: &str, topic: &str) -> Self {
        let client = ClientConfig::new().set("bootstrap.servers", brokers).create().expect("an admin client");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let options = AdminOptions::new().operation_timeout(Some(DEADLINE));
        Admin { client, options, runtime, brokers: brokers.to_owned(), topic: topic.to_owned() }
    }

    pub(crate) fn partitions(&self) -> u32 {
        let consumer = consumer(&self.brokers, "foreign", Isolation::Committed);
        partitions(&consumer, &self.topic).count() as u32
    }

    /// Makes it a topic of `count` partitions.
    pub(crate) fn add_partition(&self, count: u32) {
        let more = NewPartitions::new(&self.topic, count as usize);
        let made = self.runtime.block_on(self.client.create_partitions([&more], &self.options)).expect("an answer");
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    }

    pub(crate) fn delete_topic(&self) {
        let deleted = self.client.delete_topics(&[&self.topic], &self.options);
        let deleted = self.runtime.block_on(deleted).expect("an answer");
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    }

    /// Makes the topic, as soon as the brokers have forgotten one of this name that was deleted.
    pub(crate) fn make_topic(&self) {
        let new = NewTopic::new(&self.topic, PARTITIONS as i32, TopicReplication::Fixed(1));
        let new = new.set("cleanup.policy", "compact");
        wait_until("the topic is made", || {
            let made = self.runtime.block_on(self.client.create_topics([&new], &self.options)).expect("an answer");
            made.iter().all(Result::is_ok).then_some(())
        });
    }

    /// Deletes all records of a partition, up to its end.
    pub(crate) fn delete_records(&self, partition: u32) {
        let mut end = TopicPartitionList::new();
        end.add_partition_offset(&self.topic, partition as i32, Offset::End).expect("a partition");
        let deleted = self.runtime.block_on(self.client.delete_records(&end, &self.options)).expect("an answer");
        assert!(deleted.elements().iter().all(|element| element.error().is_ok()), "{deleted:?}");
    }

    pub(crate) fn topic_setting(&self, name: &str) -> String {
        self.setting(&ResourceSpecifier::Topic(&self.topic), name)
    }

    pub(crate) fn broker_setting(&self, name: &str) -> String {
        self.setting(&ResourceSpecifier::Broker(BROKER), name)
    }

    fn setting(&self, of: &ResourceSpecifier<'_>, name: &str) -> String {
        let mut settings = self.runtime.block_on(self.client.describe_configs([of], &self.options)).expect("an answer");
        let settings = settings.pop().expect("one answer").expect("its settings");
        settings.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default()
    }
}
