//! A real Apache Kafka that lets in by TLS and SCRAM only. Without `TANDEM_TEST_KAFKA_TLS_BROKERS` (`dev/servers up kafka-tls`
//! starts one, `dev/servers env` prints it) there is nothing to see here; with it, the binaries must be built with the
//! feature `kafka-tls`, and so must this.

use std::env;

use account_events::PUBLISHER;
use event_log::{EventLog as _, KafkaLog, KafkaSettings};
use serde_json::Value;
use tempfile::TempDir;
use test_harness::{Http, Process, binary, wait_until};

use crate::readme_flow::check_flow;
use crate::requests::{create_account, create_card, john_doe};

/// What a service must be told, and what tells it something wrong.
struct Secured {
    settings: Vec<(&'static str, String)>,
    other_ca: String,
    folder: TempDir,
}

impl Secured {
    fn find() -> Option<Self> {
        let variable = |name: &str| env::var(format!("TANDEM_TEST_KAFKA_TLS_{name}"));
        let brokers = variable("BROKERS").ok()?;
        let expect = |name| variable(name).expect("all that dev/servers env prints");
        let folder = TempDir::new().expect("a folder");
        // A folder's random name, for want of another source of one.
        let topic = folder.path().file_name().expect("a name").to_string_lossy().replace('.', "");
        let settings = vec![
            ("KAFKA_BROKERS", brokers),
            ("KAFKA_TOPIC", format!("tandem-secured-{topic}")),
            ("KAFKA_GROUP_ID", format!("tandem-secured-{topic}")),
            ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL".to_owned()),
            ("KAFKA_SASL_MECHANISM", "scram-sha-512".to_owned()),
            ("KAFKA_SASL_USERNAME", expect("USER")),
            ("KAFKA_SASL_PASSWORD", expect("PASSWORD")),
            ("KAFKA_SSL_CA_LOCATION", expect("CA")),
        ];
        Some(Secured { settings, other_ca: expect("OTHER_CA"), folder })
    }

    fn get(&self, name: &str) -> &str {
        self.settings.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_str()).expect("a setting")
    }

    /// Starts `name` with these settings, and with `others` instead where they name the same.
    fn start(&self, name: &str, others: &[(&str, &str)]) -> Process {
        let own = self.settings.iter().map(|(name, value)| (*name, value.as_str()));
        let settings: Vec<_> = own.chain(others.iter().copied()).collect();
        Process::start(&binary(name), self.folder.path(), &settings)
    }

    /// The topic, for this process.
    fn log(&self) -> KafkaLog {
        let extra = [
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", self.get("KAFKA_SASL_USERNAME")),
            ("sasl.password", self.get("KAFKA_SASL_PASSWORD")),
            ("ssl.ca.location", self.get("KAFKA_SSL_CA_LOCATION")),
        ];
        let extra = extra.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let (brokers, topic) = (self.get("KAFKA_BROKERS").to_owned(), self.get("KAFKA_TOPIC").to_owned());
        KafkaLog::open(KafkaSettings { brokers, topic, extra }).expect("settings that librdkafka takes")
    }
}

fn expect_unsaid(process: &Process, secret: &str) {
    let lines = process.lines();
    assert!(!lines.iter().any(|line| line.contains(secret)), "{lines:#?}");
}

#[test]
fn the_flow_of_the_readme_works_on_two_processes_and_a_secured_kafka() {
    let Some(secured) = Secured::find() else { return };
    let mut accounts = secured.start(account_service::NAME, &[]);
    let mut cards = secured.start(card_service::NAME, &[]);
    check_flow(&accounts.ready_service(account_service::NAME), &cards.ready_service(card_service::NAME));
    assert!(accounts.terminate().success() && cards.terminate().success());
    for process in [&accounts, &cards] {
        expect_unsaid(process, secured.get("KAFKA_SASL_PASSWORD"));
    }
}

#[test]
fn the_all_in_one_takes_a_secured_kafka_from_its_env_file() {
    let Some(secured) = Secured::find() else { return };
    let lines: String = secured.settings.iter().map(|(name, value)| format!("{name}='{value}'\n")).collect();
    std::fs::write(secured.folder.path().join(".env"), lines + "KAFKA_SOCKET_TIMEOUT_MS=9000\n").unwrap();
    let mut tandem = Process::start(&binary("tandem"), secured.folder.path(), &[]);
    let cards = tandem.ready_service(card_service::NAME);
    let id = create_account(&tandem.ready_service(account_service::NAME));
    wait_until("the event has come through", || (create_card(&cards, id).status == 201).then_some(()));
}

#[test]
fn a_wrong_password_or_authority_is_told_and_accounts_are_kept_all_the_same() {
    let Some(secured) = Secured::find() else { return };
    for (setting, value, reason) in [
        ("KAFKA_SASL_PASSWORD", "wr0ng", "SASL authentication error: Authentication failed"),
        ("KAFKA_SSL_CA_LOCATION", secured.other_ca.as_str(), "SSL handshake failed"),
    ] {
        let mut accounts = secured.start(account_service::NAME, &[(setting, value)]);
        let mut cards = secured.start(card_service::NAME, &[(setting, value)]);
        let http = accounts.ready_service(account_service::NAME);
        http.post("/account", &john_doe()).expect(201);
        expect_failure(&http, 200, "relay", reason);
        expect_failure(&cards.service(card_service::NAME), 503, "view", reason);
        for process in [&accounts, &cards] {
            let logged = process.logged();
            let is_told = |line: &Value| line["level"] == "WARN" && line.to_string().contains(reason);
            assert!(logged.iter().any(is_told), "{logged:#?}");
            expect_unsaid(process, "wr0ng");
        }
        for process in [&mut accounts, &mut cards] {
            let status = process.terminate();
            assert!(status.success(), "{status}: {:#?}", process.logged());
        }
    }
}

/// Waits until `part` of `/readyz` gives `reason`.
fn expect_failure(service: &Http, status: u16, part: &str, reason: &str) {
    wait_until("the reason is shown", || {
        let answer = service.get("/readyz");
        let failure = answer.body[part]["failure"].as_str().unwrap_or_default().to_owned();
        failure.contains(reason).then(|| assert_eq!(answer.status, status, "{}", answer.body))
    });
}

#[test]
fn a_publisher_that_another_takes_over_from_is_no_error() {
    let Some(secured) = Secured::find() else { return };
    let mut accounts = secured.start(account_service::NAME, &[("LOG_LEVEL", "debug")]);
    let http = accounts.ready_service(account_service::NAME);
    let published = |count: u64| {
        wait_until("the event is published", || {
            (http.get("/readyz").body["relay"]["published"].as_u64()? >= count).then_some(())
        });
    };
    create_account(&http);
    published(1);
    let log = secured.log();
    drop(log.publisher(PUBLISHER).expect("a publisher"));
    create_account(&http);
    // The service takes over in its turn.
    published(2);
    // What the log's client says; the relay says in its own words that it has to open another publisher.
    let is_told = |line: &&Value| {
        let is_clients = line["target"].as_str().is_some_and(|target| target.starts_with("event_log"));
        is_clients && line.to_string().contains("fenced by a newer instance")
    };
    // The line may be read a moment after the event is published.
    wait_until("the client has logged it", || accounts.logged().iter().any(|line| is_told(&line)).then_some(()));
    let logged = accounts.logged();
    let told: Vec<_> = logged.iter().filter(is_told).collect();
    assert!(!told.is_empty() && told.iter().all(|line| line["level"] == "DEBUG"), "{told:#?}");
    assert!(logged.iter().all(|line| line["level"] != "ERROR"), "{logged:#?}");
}
