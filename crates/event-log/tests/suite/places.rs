//! Where the suite's cases run.

use std::env;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use event_log::{EmbeddedLog, EmbeddedSettings, EventLog, KafkaLog, KafkaSettings};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use tempfile::TempDir;

/// How long any operation of these tests may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);

/// A place for one log.
pub(crate) trait Place {
    /// Opens the log. Only one may be open at a time.
    fn open(&self) -> Box<dyn EventLog>;
}

/// A new folder.
pub(crate) struct Embedded(TempDir);

impl Embedded {
    pub(crate) fn new() -> Embedded {
        Embedded(tempfile::tempdir().unwrap())
    }
}

impl Place for Embedded {
    fn open(&self) -> Box<dyn EventLog> {
        Box::new(EmbeddedLog::open(EmbeddedSettings::at(self.0.path().join("events.db"))).unwrap())
    }
}

/// librdkafka's mock cluster in this process.
pub(crate) struct MockKafka(MockCluster<'static, DefaultProducerContext>);

pub(crate) const MOCK_TOPIC: &str = "account-events";

impl MockKafka {
    pub(crate) fn new() -> MockKafka {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(MOCK_TOPIC, 3, 1).unwrap();
        MockKafka(cluster)
    }

    pub(crate) fn cluster(&self) -> &MockCluster<'static, DefaultProducerContext> {
        &self.0
    }

    pub(crate) fn settings(&self) -> KafkaSettings {
        KafkaSettings {
            brokers: self.0.bootstrap_servers(),
            topic: MOCK_TOPIC.to_owned(),
            // The mock cluster answers an empty fetch after its whole wait, even if a record arrives.
            extra: vec![("fetch.wait.max.ms".to_owned(), "20".to_owned())],
        }
    }
}

impl Place for MockKafka {
    fn open(&self) -> Box<dyn EventLog> {
        Box::new(KafkaLog::open(self.settings()).unwrap())
    }
}

/// A new topic on real brokers.
pub(crate) struct RealKafka(KafkaSettings);

impl RealKafka {
    /// On the brokers in `TANDEM_TEST_KAFKA_BROKERS`.
    pub(crate) fn new() -> Option<RealKafka> {
        Some(RealKafka::with_topic(env::var("TANDEM_TEST_KAFKA_BROKERS").ok()?, Vec::new()))
    }

    /// On the brokers in `TANDEM_TEST_KAFKA_TLS_BROKERS`, with TLS and a password.
    pub(crate) fn secured() -> Option<RealKafka> {
        let brokers = env::var("TANDEM_TEST_KAFKA_TLS_BROKERS").ok()?;
        let variable = |name: &str| env::var(format!("TANDEM_TEST_KAFKA_TLS_{name}")).unwrap();
        let extra = [
            ("security.protocol", "sasl_ssl".to_owned()),
            ("sasl.mechanism", "SCRAM-SHA-512".to_owned()),
            ("sasl.username", variable("USER")),
            ("sasl.password", variable("PASSWORD")),
            ("ssl.ca.location", variable("CA")),
        ];
        Some(RealKafka::with_topic(brokers, extra.map(|(name, value)| (name.to_owned(), value)).to_vec()))
    }

    fn with_topic(brokers: String, extra: Vec<(String, String)>) -> RealKafka {
        static TOPICS: AtomicU32 = AtomicU32::new(0);
        // The random name of a temporary folder.
        let unique = tempfile::tempdir().unwrap().path().file_name().unwrap().to_string_lossy().replace('.', "");
        let topic = format!("tandem-test-{unique}-{}", TOPICS.fetch_add(1, Ordering::Relaxed));
        let settings = KafkaSettings { brokers, topic, extra };
        let log = KafkaLog::open(settings.clone()).unwrap();
        log.prepare().unwrap();
        assert_eq!(log.topic_problems(PATIENCE), [""; 0]);
        RealKafka(settings)
    }

    pub(crate) fn settings(&self) -> KafkaSettings {
        self.0.clone()
    }

    /// Opens the log as another process would.
    pub(crate) fn reopened(settings: &KafkaSettings) -> Box<dyn EventLog> {
        Box::new(KafkaLog::open(settings.clone()).unwrap())
    }
}

impl Place for RealKafka {
    fn open(&self) -> Box<dyn EventLog> {
        Box::new(KafkaLog::open(self.0.clone()).unwrap())
    }
}
