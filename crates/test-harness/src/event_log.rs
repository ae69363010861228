//! The event log of a test: the embedded one in the test's folder, or, where `TANDEM_TEST_KAFKA_BROKERS` names brokers, a
//! topic of its own there.

use std::path::Path;
use std::sync::Arc;

use event_log::{DEFAULT_PARTITION_COUNT, EmbeddedLog, EmbeddedSettings, EventLog, KafkaLog, KafkaSettings};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use tempfile::TempDir;

/// The environment variable that moves the tests to Apache Kafka.
pub const KAFKA_BROKERS: &str = "TANDEM_TEST_KAFKA_BROKERS";

/// The file of the embedded log, and what SQLite may have left beside it.
const EMBEDDED: [&str; 3] = ["event-log.db", "event-log.db-wal", "event-log.db-shm"];

/// The file with the name of the topic.
const TOPIC: &str = "event-log.topic";

/// Opens the event log of the test whose folder this is: the same at each call. The embedded one can be open once at a time.
///
/// Its topic in Kafka is not compacted: brokers would refuse records without a key, which the seed's producer writes.
pub fn open_event_log(folder: &Path) -> Arc<dyn EventLog> {
    let Ok(brokers) = std::env::var(KAFKA_BROKERS) else {
        let settings = EmbeddedSettings::at(folder.join(EMBEDDED[0]));
        return Arc::new(EmbeddedLog::open(settings).expect("an intact log that nobody has open"));
    };
    let noted = folder.join(TOPIC);
    let topic = std::fs::read_to_string(&noted).unwrap_or_else(|_| {
        let topic = unique_name();
        make_topic_that_deletes(&brokers, &topic);
        std::fs::write(&noted, &topic).expect("a folder to write in");
        topic
    });
    let log =
        KafkaLog::open(KafkaSettings { brokers, topic, extra: Vec::new() }).expect("settings that librdkafka takes");
    // Waits until the brokers know the topic.
    log.prepare().expect("a topic");
    Arc::new(log)
}

/// Throws away the event log of the test whose folder this is; nobody has it open. The next one to open it has an empty one.
pub fn forget_event_log(folder: &Path) {
    for name in EMBEDDED.iter().chain([&TOPIC]) {
        // Which of them is there depends on the log, and on how SQLite left it.
        let _ = std::fs::remove_file(folder.join(name));
    }
}

/// Makes the topic as the seed's own set-up does: one that takes records without a key, and deletes old ones.
pub fn make_topic_that_deletes(brokers: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client");
    let new = NewTopic::new(topic, DEFAULT_PARTITION_COUNT as i32, TopicReplication::Fixed(1));
    let new = new.set("cleanup.policy", "delete");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let made = runtime.block_on(admin.create_topics([&new], &AdminOptions::new()));
    assert_eq!(made.expect("brokers that answer"), [Ok(topic.to_owned())]);
}

/// A name that no other test uses: a folder's random one, for want of another source of one.
pub fn unique_name() -> String {
    let folder = TempDir::new().expect("a folder");
    let name = folder.path().file_name().expect("a name").to_string_lossy().replace('.', "");
    format!("tandem-test-{name}")
}
