//! The operator's settings of librdkafka, checked without a broker.
//!
//! Each setting is a variable: `socket.timeout.ms` is `KAFKA_SOCKET_TIMEOUT_MS`. An error is one line that names the variable. Values may
//! be secrets, so no error quotes them; librdkafka itself quotes only numbers and words of its own vocabulary.

use std::fs::File;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use super::topic_watch::TopicState;
use super::{KafkaSettings, group_reader, producers, reader};
use crate::LogError;

/// Whether this build has TLS and SCRAM.
const HAS_TLS: bool = cfg!(feature = "kafka-tls");

/// Aliases and their settings. Two aliases of one setting would override each other in an undefined order.
const ALIASES: [(&str, &str); 11] = [
    ("acks", "request.required.acks"),
    ("bootstrap.servers", "metadata.broker.list"),
    ("compression.type", "compression.codec"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("linger.ms", "queue.buffering.max.ms"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("retries", "message.send.max.retries"),
    ("sasl.mechanism", "sasl.mechanisms"),
    ("sasl.oauthbearer.client.credentials.client.id", "sasl.oauthbearer.client.id"),
    ("sasl.oauthbearer.client.credentials.client.secret", "sasl.oauthbearer.client.secret"),
];

/// The settings on which the log's guarantees rest, by their [`canonical`] names, and why an operator cannot set them.
const REFUSED: [(&str, &str); 18] = [
    ("metadata.broker.list", "KAFKA_BROKERS sets it"),
    ("request.required.acks", LOSES_EVENTS),
    ("enable.idempotence", LOSES_EVENTS),
    ("queuing.strategy", LOSES_EVENTS),
    ("transactional.id", "it fences all but one publisher, and is derived from the id of the database"),
    ("partitioner", "events of an account would move to another partition and lose their order"),
    ("allow.auto.create.topics", "the services create the topic, because a topic that brokers create is not compacted"),
    ("group.id", "KAFKA_GROUP_ID sets the group of the card services"),
    ("group.instance.id", "all clients of a process would share it, and brokers refuse transactions with it"),
    ("enable.auto.commit", COMMITS),
    ("auto.commit.enable", COMMITS),
    ("enable.auto.offset.store", COMMITS),
    ("auto.offset.reset", "a reader without a position must begin at the start, or accounts would be missing"),
    ("isolation.level", "each client needs its own"),
    ("enable.partition.eof", "the end of a partition would be reported as an error"),
    ("delivery.report.only.error", "a recreated topic would not be noticed"),
    ("statistics.interval.ms", "the clients do not read statistics, which would accumulate"),
    ("log.level", "LOG_LEVEL sets it"),
];
/// The SASL mechanisms that need no library besides OpenSSL.
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
/// Files whose existence is checked here, because librdkafka's error does not name a missing file.
const PEM_FILES: [&str; 3] = ["ssl.ca.location", "ssl.certificate.location", "ssl.key.location"];
/// The file name that makes librdkafka search for the file.
const SEARCH: &str = "probe";
const LOSES_EVENTS: &str = "events would be lost, repeated or out of order";
const COMMITS: &str = "a position is committed only after the records before it have taken effect";

/// The variable that sets librdkafka's setting `name`.
pub fn kafka_variable(name: &str) -> String {
    format!("KAFKA_{}", name.to_uppercase().replace('.', "_"))
}

/// The name of a setting that may have aliases.
pub(super) fn canonical(name: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name)
}

/// Checks the operator's settings. The error is one line.
pub(super) fn check(settings: &KafkaSettings) -> Result<(), LogError> {
    let extra = &settings.extra;
    if extra.is_empty() {
        return Ok(());
    }
    for (place, (name, value)) in extra.iter().enumerate() {
        check_one(name, value).map_err(LogError::Refused)?;
        if let Some((other, _)) = extra[..place].iter().find(|(other, _)| canonical(other) == canonical(name)) {
            let (name, other) = (kafka_variable(name), kafka_variable(other));
            return Err(LogError::Refused(format!("{name} and {other} are one setting: remove one of them")));
        }
    }
    check_security(extra).map_err(LogError::Refused)?;
    check_clients(settings)
}

fn check_one(name: &str, value: &str) -> Result<(), String> {
    let variable = kafka_variable(name);
    if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == canonical(name)) {
        return Err(format!("{variable} cannot be set: {reason}"));
    }
    match ClientConfig::new().set(name, value).create_native_config() {
        Ok(_) if !HAS_TLS && needs_tls(name, value) => Err(without_tls(&variable)),
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            Err(format!("unknown setting {variable}: neither Tandem nor librdkafka has it (there it would be {name})"))
        }
        Err(KafkaError::ClientConfig(..)) if !HAS_TLS && needs_tls(name, value) => Err(without_tls(&variable)),
        Err(KafkaError::ClientConfig(_, reason, ..)) => {
            Err(format!("invalid value for {variable}: {}", one_line(&reason)))
        }
        // This error would quote the value.
        Err(KafkaError::Nul(_)) => Err(format!("invalid value for {variable}: it contains a NUL")),
        Err(error) => Err(format!("invalid value for {variable}: {error}")),
    }
}

fn needs_tls(name: &str, value: &str) -> bool {
    let value = value.to_lowercase();
    match canonical(name) {
        "security.protocol" => value.ends_with("ssl"),
        "sasl.mechanisms" => value.starts_with("scram-"),
        name => name.starts_with("ssl.") || name.contains(".ssl."),
    }
}

fn without_tls(variable: &str) -> String {
    format!("{variable} needs TLS or SCRAM, which this build does not have: build with --features kafka-tls")
}

/// Refuses settings that would silently disable encryption or authentication.
fn check_security(extra: &[(String, String)]) -> Result<(), String> {
    let find = |wanted: &str| extra.iter().find(|(name, _)| canonical(name) == wanted);
    let protocol = find("security.protocol").map_or("plaintext".to_owned(), |(_, value)| value.to_lowercase());
    let (has_sasl, has_tls) = (protocol.starts_with("sasl"), protocol.ends_with("ssl"));
    let needed = ["sasl.mechanism", "sasl.username", "sasl.password"];
    if let Some(missing) = needed.iter().find(|name| has_sasl && find(canonical(name)).is_none()) {
        let missing = kafka_variable(missing);
        return Err(format!("{missing} is not set, and KAFKA_SECURITY_PROTOCOL={protocol} needs it"));
    }
    if let Some((name, mechanism)) = find("sasl.mechanisms")
        && !MECHANISMS.contains(&mechanism.as_str())
    {
        let (variable, known) = (kafka_variable(name), MECHANISMS.join(", "));
        return Err(format!("invalid value for {variable}: expected {known}, and not {mechanism}"));
    }
    for (name, path) in extra.iter().filter(|(name, path)| PEM_FILES.contains(&name.as_str()) && path != SEARCH) {
        File::open(path)
            .map_err(|error| format!("invalid value for {}: {path} cannot be read: {error}", kafka_variable(name)))?;
    }
    let is_useless = |(name, _): &&(String, String)| {
        (name.starts_with("sasl.") && !has_sasl) || (name.starts_with("ssl.") && !has_tls)
    };
    match extra.iter().find(is_useless) {
        None => Ok(()),
        Some((name, _)) => {
            let (variable, protocols) = match name.starts_with("sasl.") {
                true => (kafka_variable(name), "sasl_ssl or sasl_plaintext"),
                false => (kafka_variable(name), "ssl or sasl_ssl"),
            };
            Err(format!("{variable} is set, but KAFKA_SECURITY_PROTOCOL is {protocol}: it applies to {protocols} only"))
        }
    }
}

/// Creates a client of each kind without brokers, which finds settings that contradict each other.
fn check_clients(settings: &KafkaSettings) -> Result<(), LogError> {
    let nowhere = KafkaSettings { brokers: String::new(), ..settings.clone() };
    let name = "tandem-check";
    producers::producer(&nowhere, name, TopicState::new(settings).batch_bytes()).map(drop)?;
    reader::consumer(&nowhere).map(drop)?;
    group_reader::consumer(&nowhere, name).map(drop)
}

/// The error that librdkafka refuses the combination of settings, with the variables that its text names.
pub(super) fn creation_error(extra: &[(String, String)], error: &KafkaError) -> LogError {
    let reason = match error {
        // This error's own text would quote the value.
        KafkaError::ClientConfig(_, reason, ..) => one_line(reason),
        error => one_line(&error.to_string()),
    };
    let is_named = |name: &str| reason.contains(name) || reason.contains(canonical(name));
    let named: Vec<_> = extra.iter().filter(|(name, _)| is_named(name)).map(|(name, _)| kafka_variable(name)).collect();
    let variables = if named.is_empty() { String::new() } else { format!("{}: ", named.join(", ")) };
    LogError::Refused(format!("{variables}librdkafka rejects the settings: {reason}"))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_what_librdkafka_takes_for_others() {
        for (alias, name) in ALIASES {
            let value = match alias {
                alias if alias.ends_with(".type") => "lz4",
                alias if alias.starts_with("sasl.") || alias.ends_with(".servers") => "somebody",
                _ => "3",
            };
            let config = ClientConfig::new().set(alias, value).create_native_config();
            // This build has no TLS.
            let Ok(config) = config else { continue };
            assert_eq!(config.get(name).unwrap(), value, "{alias}");
        }
    }
}
