//! Valid and invalid settings.

use std::ffi::OsString;
use std::net::IpAddr;

use clap::{Parser, ValueEnum};
use process::{KafkaArgs, NoSettings, Variables, bind_address, log_level, try_parse_from};

/// Serves things.
#[derive(Debug, PartialEq, Parser)]
#[command(version = "1.2.3")]
struct Settings {
    /// The port.
    #[arg(long, env = "PORT", default_value_t = 8081)]
    port: u16,
    #[arg(long, env = "BIND_ADDR", default_value = "127.0.0.1", value_parser = bind_address)]
    bind_addr: IpAddr,
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_parser = log_level)]
    log_level: String,
    #[arg(long, env = "KAFKA_BROKERS", value_delimiter = ',')]
    kafka_brokers: Vec<String>,
    #[arg(long, env = "KAFKA_TOPIC")]
    kafka_topic: Option<String>,
    #[arg(long, env = "MODE", default_value = "fast")]
    mode: Mode,
    #[arg(long, env = "SECRET_SIZE", hide_env_values = true)]
    secret_size: Option<u32>,
    #[arg(long, env = "VERBOSE")]
    verbose: bool,
    #[arg(long, env = "DATA_DIR", required = true)]
    data_dir: String,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    Fast,
    Safe,
}

fn try_parse(args: &str, environment: &[(&str, &str)], dot_env: &str) -> Result<Settings, NoSettings> {
    let args = ["program"].into_iter().chain(args.split_whitespace()).map(OsString::from);
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    try_parse_from(args, &Variables::new(environment, dot_env)?)
}

fn wrong(args: &str, environment: &[(&str, &str)], dot_env: &str) -> String {
    match try_parse(args, environment, dot_env) {
        Err(NoSettings::Wrong(line)) => line,
        other => panic!("{other:?}"),
    }
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_the_default() {
    let file = "# comment\nPORT=3\nKAFKA_TOPIC=\"from file\"\nDATA_DIR=d\nVERBOSE=true\n";
    let all = try_parse("--port 1", &[("PORT", "2")], file).unwrap();
    assert_eq!((all.port, all.kafka_topic.as_deref(), all.verbose), (1, Some("from file"), true));
    assert_eq!(try_parse("--port=1", &[], file).unwrap().port, 1);
    assert_eq!(try_parse("", &[("PORT", "2")], file).unwrap().port, 2);
    assert_eq!(try_parse("", &[], file).unwrap().port, 3);
    let none = try_parse("", &[], "DATA_DIR=d").unwrap();
    assert_eq!((none.port, none.bind_addr, none.mode), (8081, IpAddr::from([127, 0, 0, 1]), Mode::Fast));
    assert_eq!((none.kafka_brokers, none.kafka_topic, none.verbose), (vec![], None, false));
}

#[test]
fn a_variable_set_to_nothing_counts_as_unset() {
    let file = "DATA_DIR=d\nPORT=3\nKAFKA_TOPIC=\n";
    let settings = try_parse("", &[("PORT", ""), ("KAFKA_TOPIC", ""), ("KAFKA_BROKERS", "")], file).unwrap();
    assert_eq!((settings.port, settings.kafka_topic, settings.kafka_brokers), (3, None, vec![]));
}

#[test]
fn white_space_around_a_value_does_not_count_unless_it_may_be_a_secret() {
    let settings = try_parse("", &[("PORT", "2\r"), ("DATA_DIR", " d\n"), ("KAFKA_TOPIC", " \t")], "").unwrap();
    assert_eq!((settings.port, settings.data_dir.as_str(), settings.kafka_topic), (2, "d", None));
    let line = wrong("", &[("DATA_DIR", "d"), ("SECRET_SIZE", "7 ")], "");
    assert_eq!(line, "invalid value for SECRET_SIZE: invalid digit found in string");
    assert_eq!(try_parse("", &[], "DATA_DIR=d\r\nPORT=3\r\n").unwrap().port, 3);
}

#[test]
fn values_of_the_file_are_literal_and_the_last_line_of_a_name_counts() {
    let settings = try_parse("", &[("word", "expanded")], "DATA_DIR=x\nDATA_DIR=\"pa$word\\n\"\n").unwrap();
    assert_eq!(settings.data_dir, "pa$word\\n");
}

#[test]
fn a_value_that_is_not_utf8_is_refused_by_the_name_of_its_variable() {
    use std::os::unix::ffi::OsStringExt as _;
    let environment = [("DATA_DIR".into(), "d".into()), ("LOG_LEVEL".into(), OsString::from_vec(b"inf\xff".to_vec()))];
    let parsed = try_parse_from::<Settings>(["program".into()], &Variables::new(environment, "").unwrap());
    assert_eq!(parsed, Err(NoSettings::Wrong("invalid value for LOG_LEVEL: it is not UTF-8".to_owned())));
}

#[test]
fn what_kubernetes_sets_for_a_service_is_no_setting() {
    let kubernetes = [
        ("PORT", "tcp://10.0.0.1:80"),
        ("KAFKA_TOPIC_PORT", "udp://[fd00::1]:80"),
        ("VERBOSE_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("DATA_DIR", "d"),
    ];
    assert_eq!(try_parse("", &kubernetes, "").unwrap().port, 8081);
    // A value that cannot be a service link counts, and a flag always counts.
    assert_eq!(try_parse("", &kubernetes, "PORT=3").unwrap().port, 3);
    assert_eq!(try_parse("", &[], "DATA_DIR=d\nPORT=sctp://10.0.0.1:80").unwrap().port, 8081);
    assert!(wrong("--port tcp://10.0.0.1:80", &kubernetes, "").contains("for --port"));
    assert!(wrong("", &[("DATA_DIR", "d"), ("PORT", "http://10.0.0.1:80")], "").contains("for PORT"));
}

#[test]
fn a_list_is_split_wherever_it_comes_from() {
    let brokers = |args, environment: &[_]| try_parse(args, environment, "DATA_DIR=d").unwrap().kafka_brokers;
    assert_eq!(brokers("", &[("KAFKA_BROKERS", "a:1,b:2")]), ["a:1", "b:2"]);
    assert_eq!(brokers("--kafka-brokers c:3", &[("KAFKA_BROKERS", "a:1,b:2")]), ["c:3"]);
}

#[test]
fn what_is_wrong_is_said_in_one_line_that_names_the_setting() {
    let file = "DATA_DIR=d";
    for (args, environment, file, line) in [
        ("", &[("PORT", "abc")][..], file, "invalid value 'abc' for PORT: invalid digit found in string"),
        ("--port abc", &[("PORT", "1")], file, "invalid value 'abc' for --port: invalid digit found in string"),
        ("--port=70000", &[], file, "invalid value '70000' for --port: 70000 is not in 0..=65535"),
        ("", &[], "DATA_DIR=d\nPORT=x", "invalid value 'x' for PORT (in .env): invalid digit found in string"),
        (
            "",
            &[("BIND_ADDR", "localhost")],
            file,
            "invalid value 'localhost' for BIND_ADDR: expected an IP address such as 127.0.0.1, 0.0.0.0 or ::1",
        ),
        ("", &[("MODE", "slow")], file, "invalid value 'slow' for MODE: expected fast, safe"),
        ("", &[("VERBOSE", "maybe")], file, "invalid value 'maybe' for VERBOSE: expected true, false"),
        ("", &[("SECRET_SIZE", "hunter2")], file, "invalid value for SECRET_SIZE: invalid digit found in string"),
        ("", &[], "", "the following required arguments were not provided: --data-dir (or DATA_DIR) <DATA_DIR>"),
        ("--port", &[], file, "invalid value '' for --port: a value is required"),
        ("--prot 1", &[], file, "unexpected argument '--prot' found tip: a similar argument exists: '--port'"),
        ("extra", &[], file, "unexpected argument 'extra' found"),
        ("", &[], "DATA_DIR=d\n\n# fine\nthis is not fine\n", ".env line 4 is malformed: expected NAME=value"),
        (
            "",
            &[],
            "DATA_DIR=d\nPASSWORD='open\n",
            ".env line 2 is malformed: a quoted value ends with its quote, and has none of the same kind inside",
        ),
        ("postgres://bob:s3cret@host/db", &[], file, "unexpected argument '…' found"),
    ] {
        assert_eq!(wrong(args, environment, file), line, "{args} {environment:?} {file:?}");
    }
    let line = wrong("", &[("LOG_LEVEL", "inof")], file);
    assert!(line.starts_with("invalid value 'inof' for LOG_LEVEL: `inof` is no level"), "{line}");
    let line = wrong("", &[("PORT", "a\nb")], file);
    assert!(!line.contains('\n') && line.contains("PORT"), "{line}");
}

#[test]
fn help_and_version_are_for_stdout() {
    let Err(NoSettings::Asked(help)) = try_parse("--help", &[("SECRET_SIZE", "77")], "") else { panic!() };
    assert!(help.contains("The port [env: PORT] [default: 8081]"), "{help}");
    assert!(help.contains("[env: KAFKA_TOPIC]") && !help.contains("77"), "{help}");
    assert_eq!(try_parse("--version", &[], ""), Err(NoSettings::Asked("process 1.2.3\n".to_owned())));
}

#[derive(Debug, Parser)]
struct WithKafka {
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// The properties for librdkafka.
fn properties(args: &str, environment: &[(&str, &str)], dot_env: &str) -> Vec<(String, String)> {
    let args = ["program"].into_iter().chain(args.split_whitespace()).map(OsString::from);
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let variables = Variables::new(environment, dot_env).expect("a file that can be read");
    let settings: WithKafka = try_parse_from(args, &variables).expect("good settings");
    settings.kafka.properties(&variables).expect("UTF-8")
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn security_is_told_in_librdkafkas_words_whatever_the_case() {
    let environment = [
        ("KAFKA_SECURITY_PROTOCOL", "Sasl_SSL"),
        ("KAFKA_SASL_MECHANISM", "scram-sha-256"),
        ("KAFKA_SASL_USERNAME", "me"),
        ("KAFKA_SASL_PASSWORD", "s3cret"),
        ("KAFKA_SSL_CA_LOCATION", "/ca.pem"),
    ];
    let expected = pairs(&[
        ("security.protocol", "sasl_ssl"),
        ("sasl.mechanism", "SCRAM-SHA-256"),
        ("sasl.username", "me"),
        ("sasl.password", "s3cret"),
        ("ssl.ca.location", "/ca.pem"),
    ]);
    assert_eq!(properties("", &environment, ""), expected);
    let file: String = environment.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    assert_eq!(properties("", &[], &file), expected);
    let by_flag = properties("--kafka-security-protocol ssl", &environment, "");
    assert_eq!(by_flag[0], ("security.protocol".to_owned(), "ssl".to_owned()));
    assert_eq!(properties("", &[("KAFKA_BROKERS", "a:1"), ("KAFKA_TOPIC", "t"), ("KAFKA_GROUP_ID", "g")], ""), []);
}

#[test]
fn any_other_variable_with_the_prefix_is_a_setting_of_librdkafkas() {
    let environment =
        [("KAFKA_SOCKET_TIMEOUT_MS", "9000"), ("KAFKA_LINGER_MS", ""), ("XKAFKA_ACKS", "0"), ("KAFKA", "x")];
    let file = "KAFKA_SOCKET_TIMEOUT_MS=1\nKAFKA_LINGER_MS=2\nKAFKA_CLIENT_ID='a b'\n";
    let expected = pairs(&[("client.id", "a b"), ("linger.ms", "2"), ("socket.timeout.ms", "9000")]);
    assert_eq!(properties("", &environment, file), expected);
}

#[test]
fn what_kubernetes_sets_for_a_service_called_kafka_is_left_alone() {
    let kubernetes = [
        ("KAFKA_SERVICE_HOST", "10.0.0.1"),
        ("KAFKA_SERVICE_PORT", "9092"),
        ("KAFKA_SERVICE_PORT_TCP_CLIENT", "9092"),
        ("KAFKA_PORT", "tcp://10.0.0.1:9092"),
        ("KAFKA_PORT_9092_TCP", "tcp://10.0.0.1:9092"),
        ("KAFKA_PORT_9092_TCP_PROTO", "tcp"),
        ("KAFKA_PORT_9092_TCP_PORT", "9092"),
        ("KAFKA_PORT_9092_TCP_ADDR", "10.0.0.1"),
        ("KAFKA_UI_SERVICE_HOST", "fd00::1"),
        ("KAFKA_PORT_UI_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("KAFKA_UI_PORT_80_TCP_ADDR", "fd00::1"),
    ];
    assert_eq!(properties("", &kubernetes, ""), []);
    // Kubernetes sets no such variables.
    for (variable, name) in [
        (("KAFKA_PORT", "9092"), "port"),
        (("KAFKA_SERVICE_HOST", "kafka"), "service.host"),
        (("KAFKA_SERVICE_PORTS", "9092"), "service.ports"),
        (("KAFKA_PORT_9092", "tcp"), "port.9092"),
        (("KAFKA_PORT_9092_TCP_NAME", "x"), "port.9092.tcp.name"),
        (("KAFKA_SUPPORT_1_TCP", "x"), "support.1.tcp"),
    ] {
        assert_eq!(properties("", &[variable], ""), pairs(&[(name, variable.1)]));
    }
}

#[test]
fn kafkas_password_is_never_shown() {
    let variables = Variables::new([("KAFKA_SASL_PASSWORD".into(), "s3cret".into())], "").unwrap();
    let parse = |args: &[&str]| try_parse_from::<WithKafka>(args.iter().map(OsString::from), &variables);
    let Err(NoSettings::Asked(help)) = parse(&["program", "--help"]) else { panic!() };
    assert!(help.contains("KAFKA_SASL_PASSWORD") && !help.contains("s3cret"), "{help}");
    let settings = format!("{:?}", parse(&["program"]).unwrap());
    assert!(settings.contains("kafka_sasl_password") && !settings.contains("s3cret"), "{settings}");
    let Err(NoSettings::Wrong(line)) = parse(&["program", "--kafka-topic"]) else { panic!() };
    assert!(!line.contains("s3cret"), "{line}");
}
