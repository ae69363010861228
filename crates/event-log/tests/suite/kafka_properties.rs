//! The operator's settings of librdkafka: accepted, or refused in one line that names the variable. There is no broker.

use event_log::{KafkaLog, KafkaSettings, LogError};

/// The error of opening a log with these settings, if any.
fn complaint(extra: &[(&str, &str)]) -> Option<String> {
    let extra = extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let settings = KafkaSettings { brokers: "127.0.0.1:1".to_owned(), topic: "t".to_owned(), extra };
    match KafkaLog::open(settings) {
        Ok(_) => None,
        Err(LogError::Refused(line)) => Some(line),
        Err(other) => panic!("{other:?}"),
    }
}

fn expect_complaint(extra: &[(&str, &str)], words: &[&str]) {
    let line = complaint(extra).unwrap_or_else(|| panic!("{extra:?} is taken"));
    assert!(!line.contains('\n') && words.iter().all(|word| line.contains(word)), "{extra:?}: {line}");
}

#[test]
fn what_is_good_for_one_kind_of_client_does_not_keep_the_others_from_being_made() {
    let good = [
        ("socket.timeout.ms", "9000"),
        ("client.id", "another"),
        // Only for producers.
        ("linger.ms", "1"),
        ("compression.type", "lz4"),
        // Only for consumers.
        ("fetch.wait.max.ms", "20"),
        ("session.timeout.ms", "20000"),
        ("partition.assignment.strategy", "cooperative-sticky"),
    ];
    for one in good {
        assert_eq!(complaint(&[one]), None);
    }
    assert_eq!(complaint(&good), None);
}

#[test]
fn what_is_unknown_or_invalid_is_named() {
    expect_complaint(&[("no.such.setting", "1")], &["unknown", "KAFKA_NO_SUCH_SETTING", "no.such.setting"]);
    expect_complaint(&[("broker", "a:1")], &["unknown", "KAFKA_BROKER:"]);
    expect_complaint(&[("socket.timeout.ms", "abc")], &["invalid", "KAFKA_SOCKET_TIMEOUT_MS"]);
    expect_complaint(&[("socket.timeout.ms", "5")], &["invalid", "KAFKA_SOCKET_TIMEOUT_MS", "10..300000"]);
    expect_complaint(&[("compression.type", "brotli")], &["invalid", "KAFKA_COMPRESSION_TYPE", "brotli"]);
    expect_complaint(&[("client.id", "a\0b")], &["invalid", "KAFKA_CLIENT_ID", "NUL"]);
    // librdkafka has such names for callbacks, which only a program can set.
    expect_complaint(&[("error.cb", "1")], &["unknown", "KAFKA_ERROR_CB"]);
}

#[test]
fn what_settings_make_of_each_other_is_found_out_too() {
    // Only a transactional producer refuses it.
    expect_complaint(&[("socket.timeout.ms", "60000")], &["KAFKA_SOCKET_TIMEOUT_MS", "transaction.timeout.ms"]);
    assert_eq!(complaint(&[("socket.timeout.ms", "60000"), ("transaction.timeout.ms", "60000")]), None);
    // Only a consumer refuses it.
    expect_complaint(&[("max.poll.interval.ms", "9000")], &["KAFKA_MAX_POLL_INTERVAL_MS", "session.timeout.ms"]);
    // Two names of one setting.
    let twice = [("linger.ms", "1"), ("queue.buffering.max.ms", "2")];
    expect_complaint(&twice, &["KAFKA_LINGER_MS", "KAFKA_QUEUE_BUFFERING_MAX_MS", "one setting"]);
}

#[test]
fn what_the_logs_promises_rest_on_cannot_be_set() {
    for (name, value) in [
        ("acks", "0"),
        ("request.required.acks", "1"),
        ("enable.idempotence", "false"),
        ("transactional.id", "mine"),
        ("partitioner", "random"),
        ("group.id", "mine"),
        ("group.instance.id", "mine"),
        ("isolation.level", "read_committed"),
        ("enable.auto.commit", "true"),
        ("auto.commit.enable", "true"),
        ("enable.auto.offset.store", "true"),
        ("auto.offset.reset", "latest"),
        ("bootstrap.servers", "elsewhere:1"),
        ("metadata.broker.list", "elsewhere:1"),
        ("allow.auto.create.topics", "true"),
    ] {
        let variable = format!("KAFKA_{}", name.to_uppercase().replace('.', "_"));
        expect_complaint(&[(name, value)], &[&variable, "cannot be set: "]);
    }
}

#[test]
fn half_a_security_is_refused() {
    let sasl = ("security.protocol", "SASL_plaintext");
    let (plain, user, password) = (("sasl.mechanism", "PLAIN"), ("sasl.username", "me"), ("sasl.password", "s3cret"));
    assert_eq!(complaint(&[sasl, plain, user, password]), None);
    expect_complaint(&[sasl, user, password], &["KAFKA_SASL_MECHANISM is not set", "sasl_plaintext"]);
    expect_complaint(&[sasl, plain, password], &["KAFKA_SASL_USERNAME is not set"]);
    expect_complaint(&[sasl, plain, user], &["KAFKA_SASL_PASSWORD is not set"]);
    expect_complaint(&[user, password], &["KAFKA_SASL_USERNAME", "KAFKA_SECURITY_PROTOCOL is plaintext"]);
    expect_complaint(&[sasl, ("sasl.mechanisms", "nonsense"), user, password], &["KAFKA_SASL_MECHANISMS", "nonsense"]);
}

#[test]
fn secrets_are_in_no_line_and_in_no_debug_text() {
    for extra in [
        &[("sasl.password", "s3cret")][..],
        &[("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "PLAIN"), ("sasl.password", "s3cret")],
        &[("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "GSSAPI"), ("sasl.password", "s3cret")],
        &[("sasl.password", "s3cret\0")],
        &[("sasl.passwort", "s3cret")],
    ] {
        let line = complaint(extra).expect("a complaint");
        assert!(!line.contains("s3cret"), "{line}");
    }
    let extra = vec![("sasl.password".to_owned(), "s3cret".to_owned())];
    let settings = KafkaSettings { brokers: "127.0.0.1:1".to_owned(), topic: "t".to_owned(), extra };
    let text = format!("{settings:?}");
    assert!(text.contains("sasl.password") && !text.contains("s3cret"), "{text}");
}

#[cfg(not(feature = "kafka-tls"))]
#[test]
fn what_needs_tls_names_the_feature_to_build_with() {
    let (user, password) = (("sasl.username", "me"), ("sasl.password", "s3cret"));
    for (extra, variable) in [
        (&[("security.protocol", "ssl")][..], "KAFKA_SECURITY_PROTOCOL"),
        (&[("security.protocol", "Sasl_SSL"), ("sasl.mechanism", "PLAIN"), user, password], "KAFKA_SECURITY_PROTOCOL"),
        (
            &[("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "SCRAM-SHA-256"), user, password],
            "KAFKA_SASL_MECHANISM",
        ),
        (&[("ssl.ca.location", "/ca.pem")], "KAFKA_SSL_CA_LOCATION"),
    ] {
        expect_complaint(extra, &[variable, "--features kafka-tls"]);
    }
    expect_complaint(&[("ssl.no.such.thing", "1")], &["unknown", "KAFKA_SSL_NO_SUCH_THING"]);
}

#[cfg(feature = "kafka-tls")]
#[test]
fn certificates_are_looked_at() {
    let (tls, file) = (("security.protocol", "ssl"), tempfile::NamedTempFile::new().unwrap());
    assert_eq!(complaint(&[tls]), None);
    let path = file.path().to_str().unwrap();
    expect_complaint(&[tls, ("ssl.ca.location", path)], &["KAFKA_SSL_CA_LOCATION", "no certificate"]);
    let missing = "/no/such/ca.pem";
    expect_complaint(&[tls, ("ssl.ca.location", missing)], &["KAFKA_SSL_CA_LOCATION", missing, "No such file"]);
    expect_complaint(&[("ssl.ca.location", path)], &["KAFKA_SSL_CA_LOCATION", "KAFKA_SECURITY_PROTOCOL is plaintext"]);
}
