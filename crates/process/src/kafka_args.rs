//! The Kafka settings: flags for the common ones, and a `KAFKA_` variable for any other property of librdkafka, such as
//! `KAFKA_SOCKET_TIMEOUT_MS` for `socket.timeout.ms`.

use std::fmt::{self, Debug, Formatter};

use anyhow::anyhow;
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use event_log::KafkaSettings;

use crate::Variables;

/// The prefix of Kafka's variables.
const PREFIX: &str = "KAFKA_";

/// Variables with the prefix that are flags here, and not properties of librdkafka. GROUP_ID is a setting of the card service
/// only, but the services may share their environment.
const OURS: [&str; 8] = [
    "BROKERS",
    "TOPIC",
    "GROUP_ID",
    "SECURITY_PROTOCOL",
    "SASL_MECHANISM",
    "SASL_USERNAME",
    "SASL_PASSWORD",
    "SSL_CA_LOCATION",
];

/// Variables with the prefix that Kafka's own scripts read.
const KAFKAS_OWN: [&str; 6] = ["HOME", "OPTS", "HEAP_OPTS", "LOG4J_OPTS", "JMX_OPTS", "JVM_PERFORMANCE_OPTS"];

/// The Kafka settings.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Any other setting of librdkafka can be set by an environment variable or a line of .env: \
    KAFKA_SOCKET_TIMEOUT_MS sets socket.timeout.ms.")]
pub struct KafkaArgs {
    /// Kafka's brokers, as host:port with commas between them
    #[arg(long, env = "KAFKA_BROKERS")]
    pub kafka_brokers: Option<String>,

    /// The topic of account events; made if it is missing, with 3 partitions and cleanup.policy=compact
    #[arg(long, env = "KAFKA_TOPIC", default_value = "account-events")]
    pub kafka_topic: String,

    /// How to talk to the brokers; ssl and sasl_ssl need a build with the feature kafka-tls [default: plaintext]
    #[arg(long, env = "KAFKA_SECURITY_PROTOCOL", ignore_case = true, value_parser = security_protocol())]
    pub kafka_security_protocol: Option<String>,

    /// How to prove who this is, where the protocol is one of sasl; SCRAM needs a build with the feature kafka-tls
    #[arg(long, env = "KAFKA_SASL_MECHANISM", ignore_case = true, value_parser = sasl_mechanism())]
    pub kafka_sasl_mechanism: Option<String>,

    /// The user that the brokers know this as
    #[arg(long, env = "KAFKA_SASL_USERNAME")]
    pub kafka_sasl_username: Option<String>,

    /// That user's password; a flag can be seen by everyone on the machine, so rather set the variable
    #[arg(long, env = "KAFKA_SASL_PASSWORD", hide_env_values = true)]
    pub kafka_sasl_password: Option<Secret>,

    /// The PEM file of the certificate authorities that vouch for the brokers [default: those of the system]
    #[arg(long, env = "KAFKA_SSL_CA_LOCATION")]
    pub kafka_ssl_ca_location: Option<String>,
}

/// `security.protocol`: whether connections use TLS, and whether clients authenticate.
fn security_protocol() -> impl TypedValueParser<Value = String> {
    let values = [
        PossibleValue::new("plaintext").help("Neither TLS nor authentication"),
        PossibleValue::new("ssl").help("TLS without authentication"),
        PossibleValue::new("sasl_plaintext").help("Authentication without TLS: the network can read passwords"),
        PossibleValue::new("sasl_ssl").help("TLS and authentication"),
    ];
    PossibleValuesParser::new(values).map(|value| value.to_lowercase())
}

/// `sasl.mechanism`: how clients authenticate.
fn sasl_mechanism() -> impl TypedValueParser<Value = String> {
    let values = [
        PossibleValue::new("PLAIN").help("The client sends the password"),
        PossibleValue::new("SCRAM-SHA-256").help("The client proves that it knows the password"),
        PossibleValue::new("SCRAM-SHA-512").help("The same, with longer hashes"),
    ];
    PossibleValuesParser::new(values).map(|value| value.to_uppercase())
}

/// Text that `Debug` does not show.
#[derive(Clone)]
pub struct Secret(String);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Secret(text)
    }
}

impl Debug for Secret {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str("(secret)")
    }
}

impl KafkaArgs {
    /// The settings of the Kafka event log, or `None` without brokers. `variables` are those that these settings came from.
    pub fn log_settings(&self, variables: &Variables) -> anyhow::Result<Option<KafkaSettings>> {
        let extra = self.properties(variables)?;
        let Some(brokers) = self.kafka_brokers.clone() else { return Ok(None) };
        Ok(Some(KafkaSettings { brokers, topic: self.kafka_topic.clone(), extra }))
    }

    /// The properties of librdkafka besides the brokers and the topic, under librdkafka's names. The event log checks whether
    /// librdkafka knows them.
    pub fn properties(&self, variables: &Variables) -> anyhow::Result<Vec<(String, String)>> {
        let own = [
            ("security.protocol", self.kafka_security_protocol.as_ref()),
            ("sasl.mechanism", self.kafka_sasl_mechanism.as_ref()),
            ("sasl.username", self.kafka_sasl_username.as_ref()),
            ("sasl.password", self.kafka_sasl_password.as_ref().map(|Secret(text)| text)),
            ("ssl.ca.location", self.kafka_ssl_ca_location.as_ref()),
        ];
        let own = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.clone())));
        let mut properties: Vec<_> = own.collect();
        let is_property = |name: &str| !OURS.contains(&name) && !KAFKAS_OWN.contains(&name);
        for (name, value) in variables.with_prefix(PREFIX).filter(|(name, _)| is_property(name)) {
            let value = value.to_str().ok_or_else(|| anyhow!("invalid value for {PREFIX}{name}: it is not UTF-8"))?;
            properties.push((name.to_lowercase().replace('_', "."), value.to_owned()));
        }
        Ok(properties)
    }
}
