//! Settings, as an operator meets them: explained by `--help`, taken from the environment and `.env`, and when one is
//! wrong, one line that names it.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use test_harness::{Process, binary, output_of, wait_until};

const BINARIES: [&str; 3] = ["tandem", "account-service", "card-service"];

const COMMON: &[&str] = &[
    "KAFKA_BROKERS",
    "KAFKA_TOPIC",
    "KAFKA_SECURITY_PROTOCOL",
    "KAFKA_SASL_MECHANISM",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
    "KAFKA_SSL_CA_LOCATION",
    "BIND_ADDR",
    "DATA_DIR",
    "LOG_LEVEL",
    "CORS_ALLOW_ORIGIN",
    "ALLOWED_HOSTS",
    "HTTP_IDLE_TIMEOUT_SECONDS",
    "IDEMPOTENCY_KEY_HOURS",
    "RATE_LIMIT_PER_ADDRESS",
    "RATE_LIMIT_PER_CALLER",
    "MAX_IN_FLIGHT_PER_CALLER",
    "MAX_CONNECTIONS_PER_ADDRESS",
    "TLS_CERT_FILE",
    "TLS_KEY_FILE",
    "AUTH",
    "API_KEYS_FILE",
    "JWT_JWKS_URL",
    "JWT_PUBLIC_KEY_FILE",
    "JWT_ISSUER",
    "JWT_AUDIENCE",
    "AUDIT_FILE",
    "AUDIT_FILE_MAX_MB",
    "AUDIT_FILE_KEEP",
];

/// What a binary takes besides [`COMMON`].
fn own_settings(name: &str) -> &'static [&'static str] {
    match name {
        "account-service" => &["PORT", "DATABASE_URL"],
        "card-service" => {
            &["PORT", "DATABASE_URL", "KAFKA_GROUP_ID", "VIEW_MAX_AGE_SECONDS", "MAX_EVENT_STREAMS", "REBUILD_VIEW"]
        }
        _ => &[
            "ACCOUNT_PORT",
            "CARD_PORT",
            "ACCOUNT_DATABASE_URL",
            "CARD_DATABASE_URL",
            "KAFKA_GROUP_ID",
            "VIEW_MAX_AGE_SECONDS",
            "MAX_EVENT_STREAMS",
            "REBUILD_VIEW",
        ],
    }
}

/// Runs a binary that does not go on to serve.
fn run(name: &str, folder: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(binary(name));
    output_of(command.current_dir(folder).env_clear().envs(settings.iter().copied()).args(arguments))
}

/// The one line on stderr of a binary that refuses to start.
pub(crate) fn refusal(name: &str, folder: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> String {
    let output = run(name, folder, arguments, settings);
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(!output.status.success() && output.stdout.is_empty(), "{name}: {}\n{text}", output.status);
    let [line] = text.lines().collect::<Vec<_>>()[..] else { panic!("{name}: not one line: {text}") };
    assert!(line.starts_with("error: "), "{name}: {line}");
    line.to_owned()
}

#[test]
fn help_explains_every_setting() {
    let folder = TempDir::new().unwrap();
    for name in BINARIES {
        let output = run(name, folder.path(), &["--help"], &[]);
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {output:?}");
        // A flag without a value ends its line.
        let help = String::from_utf8(output.stdout).unwrap().replace('\n', " \n");
        for variable in COMMON.iter().chain(own_settings(name)) {
            let flag = format!("--{}", variable.to_lowercase().replace('_', "-"));
            // A setting's text runs from its flag to the next one's.
            let (_, text) = help.split_once(&format!("{flag} ")).unwrap_or_else(|| panic!("{name}: {flag}\n{help}"));
            let text = text.split(" --").next().unwrap_or_default();
            let (words, _) = text.split_once(&format!("[env: {variable}]")).unwrap_or_else(|| panic!("{name}: {text}"));
            assert!(words.split_whitespace().count() > 3, "{name}: {flag} is not explained: {words}");
        }
    }
}

#[test]
fn the_version_is_that_of_the_workspace() {
    let folder = TempDir::new().unwrap();
    for name in BINARIES {
        let output = run(name, folder.path(), &["--version"], &[]);
        assert!(output.status.success(), "{name}: {output:?}");
        let version = String::from_utf8(output.stdout).unwrap();
        assert_eq!(version.trim_end(), format!("{name} {}", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn an_invalid_setting_is_named_in_one_line() {
    let folder = TempDir::new().unwrap();
    for name in BINARIES {
        let prefix = if name == "tandem" { "ACCOUNT_" } else { "" };
        let port = format!("{prefix}PORT");
        for (variable, value) in [
            (port.as_str(), "abc"),
            (port.as_str(), "65536"),
            ("BIND_ADDR", "nope"),
            ("LOG_LEVEL", "loud"),
            ("CORS_ALLOW_ORIGIN", "not an origin"),
            ("ALLOWED_HOSTS", "accounts.example:8081"),
            ("HTTP_IDLE_TIMEOUT_SECONDS", "0"),
            ("IDEMPOTENCY_KEY_HOURS", "0"),
            ("IDEMPOTENCY_KEY_HOURS", "8761"),
            ("AUTH", "basic"),
            ("AUDIT_FILE", "/no/such/folder/audit"),
            ("AUDIT_FILE_MAX_MB", "0"),
            ("AUDIT_FILE_KEEP", "0"),
        ] {
            let line = refusal(name, folder.path(), &[], &[(variable, value)]);
            assert!(line.contains(variable) && line.contains(value), "{name}: {line}");
        }
        let line = refusal(name, folder.path(), &["--no-such-thing"], &[]);
        assert!(line.contains("--no-such-thing"), "{name}: {line}");
        let flag = format!("--{}", port.to_lowercase().replace('_', "-"));
        let line = refusal(name, folder.path(), &[&flag, "abc"], &[]);
        assert!(line.contains(&flag) && line.contains("abc"), "{name}: {line}");
    }
}

#[test]
fn a_malformed_or_wrong_env_file_is_named_in_one_line() {
    let folder = TempDir::new().unwrap();
    for name in BINARIES {
        std::fs::write(folder.path().join(".env"), "# settings\nKAFKA_TOPIC 'no equals sign\n").unwrap();
        let line = refusal(name, folder.path(), &[], &[]);
        assert!(line.contains(".env line 2"), "{name}: {line}");
        std::fs::write(folder.path().join(".env"), "BIND_ADDR=nope\n").unwrap();
        let line = refusal(name, folder.path(), &[], &[]);
        assert!(line.contains("BIND_ADDR") && line.contains(".env") && line.contains("nope"), "{name}: {line}");
    }
}

/// What is said of a database URL is the variable and the cause: any part of one that is malformed may be a password.
#[test]
fn a_malformed_database_url_is_refused_without_repeating_it() {
    let folder = TempDir::new().unwrap();
    let forms = [
        ("mysql://bob:s3cret@host/x", "mysql: is not supported"),
        ("user=bob password=s3cret host=::1 port=5432 dbname=x", "starts with sqlite:"),
        ("password=s3cret host=db options='-c search_path=bob' application_name=x:y", "starts with sqlite:"),
        ("postgres:bob:s3cret@host/x", "starts with sqlite:"),
        ("postgres://bob:s3@cret@host/x", "@ must be written %40"),
        ("postgres://bob:s3cret@host:port/x", "invalid value for option `port`"),
        ("postgres://bob:s3cret@host/x?password=s3&cret=1", "parameter number 2 is not supported"),
    ];
    let variables = [
        ("tandem", "ACCOUNT_DATABASE_URL"),
        ("tandem", "CARD_DATABASE_URL"),
        ("account-service", "DATABASE_URL"),
        ("card-service", "DATABASE_URL"),
    ];
    for ((name, variable), (url, cause)) in variables.into_iter().flat_map(|binary| forms.map(|form| (binary, form))) {
        let flag = format!("--{}", variable.to_lowercase().replace('_', "-"));
        for (given, line) in [
            (variable, refusal(name, folder.path(), &[], &[(variable, url)])),
            (&flag, refusal(name, folder.path(), &[&flag, url], &[])),
        ] {
            assert!(line.contains(&format!("invalid value for {given}: ")) && line.contains(cause), "{name}: {line}");
            assert!(!["bob", "s3", "cret"].iter().any(|part| line.contains(part)), "{name}: {line}");
        }
        // Without its flag, or with another one, it is an argument that clap would repeat.
        for arguments in [&[url][..], &[&format!("--databse-url={url}")]] {
            let line = refusal(name, folder.path(), arguments, &[]);
            assert!(!["bob", "s3", "cret"].iter().any(|part| line.contains(part)), "{name}: {line}");
        }
    }
}

#[test]
fn the_env_file_is_read_and_the_environment_wins_over_it() {
    let folder = TempDir::new().unwrap();
    let made = |name: &str| folder.path().join(name).join("account.db").exists();
    // Values are literal: a password may have a `$` in it.
    std::fs::write(folder.path().join(".env"), "DATA_DIR=./of$the-file\r\n").unwrap();
    let mut tandem = Process::start(&binary("tandem"), folder.path(), &[]);
    tandem.ready_service(account_service::NAME);
    assert!(tandem.terminate().success());
    assert!(made("of$the-file") && !made("data"));

    let mut tandem = Process::start(&binary("tandem"), folder.path(), &[("DATA_DIR", "./of-the-environment")]);
    tandem.ready_service(account_service::NAME);
    assert!(tandem.terminate().success());
    assert!(made("of-the-environment"));
}

#[test]
fn a_wrong_setting_of_kafkas_is_named_in_one_line() {
    let folder = TempDir::new().unwrap();
    let given = [("PORT", "0"), ("ACCOUNT_PORT", "0"), ("CARD_PORT", "0"), ("KAFKA_BROKERS", "127.0.0.1:1")];
    let half = [("KAFKA_SECURITY_PROTOCOL", "sasl_plaintext"), ("KAFKA_SASL_PASSWORD", "s3cret")];
    for name in BINARIES {
        for (settings, words) in [
            (&[("KAFKA_SECURITY_PROTOCOL", "tls")][..], &["KAFKA_SECURITY_PROTOCOL", "tls", "sasl_ssl"][..]),
            (&[("KAFKA_SASL_MECHANISM", "MD5")], &["KAFKA_SASL_MECHANISM", "MD5", "SCRAM-SHA-512"]),
            (&half, &["KAFKA_SASL_MECHANISM is not set"]),
            (&[("KAFKA_NO_SUCH_THING", "1")], &["unknown setting KAFKA_NO_SUCH_THING"]),
            (&[("KAFKA_SOCKET_TIMEOUT_MS", "soon")], &["invalid", "KAFKA_SOCKET_TIMEOUT_MS"]),
            (&[("KAFKA_MAX_POLL_INTERVAL_MS", "9000")], &["KAFKA_MAX_POLL_INTERVAL_MS", "session.timeout.ms"]),
            (&[("KAFKA_ACKS", "1")], &["KAFKA_ACKS cannot be set: "]),
            (&[("KAFKA_BOOTSTRAP_SERVERS", "a:1")], &["KAFKA_BOOTSTRAP_SERVERS cannot be set: ", "KAFKA_BROKERS"]),
        ] {
            let line = refusal(name, folder.path(), &[], &[&given, settings].concat());
            assert!(words.iter().all(|word| line.contains(word)) && !line.contains("s3cret"), "{name}: {line}");
        }
        std::fs::write(folder.path().join(".env"), "KAFKA_ISOLATION_LEVEL=read_committed\n").unwrap();
        let line = refusal(name, folder.path(), &[], &given);
        assert!(line.contains("KAFKA_ISOLATION_LEVEL cannot be set: "), "{name}: {line}");
        std::fs::remove_file(folder.path().join(".env")).unwrap();
    }
    if cfg!(not(feature = "kafka-tls")) {
        for name in BINARIES {
            let line = refusal(name, folder.path(), &[], &[&given[..], &[("KAFKA_SECURITY_PROTOCOL", "ssl")]].concat());
            assert!(
                line.contains("KAFKA_SECURITY_PROTOCOL") && line.contains("--features kafka-tls"),
                "{name}: {line}"
            );
        }
    }
    // Whoever misspells where Kafka is does not want the embedded event log.
    let line = refusal("tandem", folder.path(), &[], &[("KAFKA_BROKER", "kafka:9092"), given[1], given[2]]);
    assert!(line.contains("KAFKA_BROKER is set") && line.contains("KAFKA_BROKERS"), "{line}");
}

#[test]
fn what_kubernetes_sets_for_services_called_as_ours_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let kubernetes = [
        ("ACCOUNT_SERVICE_HOST", "10.0.0.1"),
        ("ACCOUNT_SERVICE_PORT", "8081"),
        ("ACCOUNT_PORT", "tcp://10.0.0.1:8081"),
        ("ACCOUNT_PORT_8081_TCP", "tcp://10.0.0.1:8081"),
        ("CARD_PORT", "tcp://10.0.0.1:8082"),
        ("KAFKA_SERVICE_HOST", "10.0.0.1"),
        ("KAFKA_SERVICE_PORT", "9092"),
        ("KAFKA_PORT", "tcp://10.0.0.1:9092"),
        ("KAFKA_PORT_9092_TCP_ADDR", "10.0.0.1"),
    ];
    // What the environment has from Kubernetes gives way to the file, as if it were not set.
    std::fs::write(folder.path().join(".env"), "ACCOUNT_PORT=0\nCARD_PORT=0\n").unwrap();
    let mut tandem = Process::start(&binary("tandem"), folder.path(), &kubernetes);
    tandem.ready_service(account_service::NAME);
    assert!(tandem.terminate().success());
    let with_kafka = [&kubernetes[..], &[("KAFKA_BROKERS", "127.0.0.1:1")]].concat();
    let mut accounts = Process::start(&binary(account_service::NAME), folder.path(), &with_kafka);
    accounts.ready_service(account_service::NAME);
    assert!(accounts.terminate().success());
}

#[test]
fn a_service_without_kafka_says_so_and_names_the_all_in_one() {
    let folder = TempDir::new().unwrap();
    for name in ["account-service", "card-service"] {
        let line = refusal(name, folder.path(), &[], &[("PORT", "0")]);
        assert!(line.contains("KAFKA_BROKERS") && line.contains("-p tandem"), "{line}");
        assert!(!folder.path().join("data").exists(), "{name} has made nothing");
    }
}

#[test]
fn a_port_in_use_is_named_in_one_line() {
    let folder = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let kafka = ("KAFKA_BROKERS", "127.0.0.1:1");
    for (name, variable) in
        [("tandem", "ACCOUNT_PORT"), ("tandem", "CARD_PORT"), ("account-service", "PORT"), ("card-service", "PORT")]
    {
        let other = if variable == "CARD_PORT" { ("ACCOUNT_PORT", "0") } else { ("CARD_PORT", "0") };
        let line = refusal(name, folder.path(), &[], &[(variable, &port), other, kafka]);
        assert!(line.contains(variable) && line.contains(&format!("127.0.0.1:{port}")), "{name}: {line}");
    }
}

#[test]
fn a_folder_in_use_is_named_in_one_line() {
    let folder = TempDir::new().unwrap();
    let ports = [("ACCOUNT_PORT", "0"), ("CARD_PORT", "0"), ("PORT", "0")];
    let mut tandem = Process::start(&binary("tandem"), folder.path(), &[]);
    tandem.ready_service(account_service::NAME);
    tandem.ready_service(card_service::NAME);
    let line = refusal("tandem", folder.path(), &[], &ports);
    assert!(line.contains("./data") && line.contains("in use"), "{line}");

    // The services of their own take the same files, so they are refused too.
    for name in ["account-service", "card-service"] {
        let settings = [("PORT", "0"), ("KAFKA_BROKERS", "127.0.0.1:1")];
        let line = refusal(name, folder.path(), &[], &settings);
        assert!(line.contains("./data") && line.contains("in use"), "{name}: {line}");
    }
    assert!(tandem.terminate().success());
}

#[test]
fn a_damaged_file_is_named_in_one_line() {
    for file in ["account.db", "card.db", "event-log.db"] {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        std::fs::write(folder.path().join("data").join(file), [42; 8_192]).unwrap();
        let output = run("tandem", folder.path(), &[], &[("ACCOUNT_PORT", "0"), ("CARD_PORT", "0")]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        // The other service may have started by then, and logs that.
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('{')).collect();
        let [line] = lines[..] else { panic!("not one line: {text}") };
        assert!(line.starts_with("error: ") && line.contains(file) && line.contains("damaged"), "{line}");
    }
}

#[test]
fn an_address_that_other_machines_reach_is_warned_of_once() {
    let folder = TempDir::new().unwrap();
    for (address, count) in [("127.0.0.1", 0), ("::ffff:127.0.0.1", 0), ("0.0.0.0", 1)] {
        let mut tandem = Process::start(&binary("tandem"), folder.path(), &[("BIND_ADDR", address), ("AUTH", "off")]);
        wait_until("both services listen", || {
            let listening = tandem.logged().iter().filter(|line| line["message"] == "listening").count();
            (listening == 2).then_some(())
        });
        assert!(tandem.terminate().success());
        let warnings = tandem.logged().iter().filter(|line| line["level"] == "WARN").count();
        assert_eq!(warnings, count, "{address}: {:#?}", tandem.lines());
    }
}
