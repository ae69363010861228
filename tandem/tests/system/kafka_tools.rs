//! Kafka's own command-line tools on Apache Kafka: what they show an operator, and the services' records between foreign
//! producers and consumers. Without `TANDEM_TEST_KAFKA_BROKERS`, from `dev/servers up kafka`, there is nothing to see.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use account_events::AccountId;
use serde_json::{Value, json};
use test_harness::wait_until;

use crate::kafka::PARTITIONS;
use crate::place::Place;
use crate::requests::{create_account, create_card, error, john_doe};

/// Enough that each partition has some.
const ACCOUNTS: usize = 30;

/// The arguments that end Kafka's console consumer: after so many records, or when none comes for so long.
const NO_MORE_MS: &str = "20000";

/// What one of Kafka's tools prints when it is given `input`.
fn tool(arguments: &[&str], input: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/servers");
    let mut command = Command::new(script);
    command.arg("kafka").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("dev/servers");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("a tool that reads");
    let output = child.wait_with_output().expect("a child");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The first `count` records of `topic` as the console consumer prints those that are committed.
fn consume(topic: &str, count: usize, more: &[&str]) -> Vec<String> {
    let count = count.to_string();
    let mut arguments = vec!["console-consumer", "--topic", topic, "--from-beginning", "--max-messages", &count];
    arguments.extend(["--timeout-ms", NO_MORE_MS, "--command-property", "isolation.level=read_committed"]);
    arguments.extend(more);
    tool(&arguments, "").lines().map(str::to_owned).collect()
}

/// The lines of `kafka-consumer-groups.sh --describe`, by the names at their heads.
fn describe_group(group: &str) -> Vec<Value> {
    let text = tool(&["groups", "--describe", "--group", group], "");
    let mut lines = text.lines().filter(|line| !line.trim().is_empty()).map(|line| line.split_whitespace());
    let Some(names) = lines.find(|line| line.clone().next() == Some("GROUP")) else { return Vec::new() };
    lines.map(|line| names.clone().zip(line).map(|(name, text)| (name.to_owned(), json!(text))).collect()).collect()
}

#[test]
fn the_topic_and_the_group_are_as_kafkas_tools_expect_them() {
    let Some(place) = Place::apache_kafka() else { return };
    let kafka = place.its_kafka();
    let services = place.start_services();
    let ids: Vec<_> = (0..ACCOUNTS).map(|_| create_account(&services.accounts)).collect();

    let topics = tool(&["topics", "--list"], "");
    assert!(topics.lines().any(|topic| topic == kafka.topic), "{topics}");
    let topic = tool(&["topics", "--describe", "--topic", &kafka.topic], "");
    assert!(topic.contains(&format!("PartitionCount: {PARTITIONS}")), "{topic}");
    assert!(topic.contains("cleanup.policy=compact"), "{topic}");

    // The seed's three fields, in the seed's order, and nothing else.
    let value = |id: &AccountId| format!(r#"{{"type":"account.created","account_id":"{id}","status":"ACTIVE"}}"#);
    let values: BTreeSet<_> = consume(&kafka.topic, ACCOUNTS, &[]).into_iter().collect();
    assert_eq!(values, ids.iter().map(value).collect());

    let groups = tool(&["groups", "--list"], "");
    assert!(groups.lines().any(|group| group == kafka.group), "{groups}");
    let partitions = wait_until("the group has no lag", || {
        Some(describe_group(&kafka.group))
            .filter(|lines| !lines.is_empty() && lines.iter().all(|line| line["LAG"] == "0"))
    });
    assert_eq!(partitions.len(), PARTITIONS as usize, "{partitions:?}");
    for line in partitions {
        assert_eq!((&line["TOPIC"], &line["CURRENT-OFFSET"]), (&json!(kafka.topic), &line["LOG-END-OFFSET"]), "{line}");
        assert!(line["CLIENT-ID"] == "tandem" && line["CONSUMER-ID"] != "-", "it has a member: {line}");
    }
}

/// One line of a file of golden records.
fn golden(file: &str, line: usize) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/account-events/testdata").join(file);
    let text = std::fs::read_to_string(path).expect("golden records");
    serde_json::from_str(text.lines().nth(line).expect("that many lines")).expect("JSON")
}

#[test]
fn a_foreign_consumer_gets_the_golden_record() {
    let Some(place) = Place::apache_kafka() else { return };
    let golden = golden("tandem.jsonl", 0);
    let headers: Vec<(String, String)> = serde_json::from_value(golden["headers"].clone()).expect("pairs");
    let golden_header = |name: &str| headers.iter().find(|header| header.0 == name).expect("a header").1.as_str();

    let services = place.start_services();
    let sent = [("Content-Type", "application/json"), ("traceparent", golden_header("traceparent"))];
    let account = services.accounts.send("POST", "/account", &sent, john_doe().to_string().into()).expect(201);
    let field = |name: &str| account[name].as_str().expect(name).to_owned();

    let all = ["--formatter-property", "print.key=true", "--formatter-property", "print.headers=true"];
    let [record] = &consume(&place.its_kafka().topic, 1, &all)[..] else { panic!("not one record") };
    let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name}:{value}")).collect();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let expected = [headers.join(","), text(&golden["key"]), text(&golden["value"])].join("\t");
    let expected = expected.replace(&text(&golden["key"]), &field("id"));
    assert_eq!(*record, expected.replace(golden_header("ce_time"), &field("created_at")));
}

/// The seed's Go producer writes neither keys nor headers, and the seed's topic is not compacted.
#[test]
fn the_records_of_the_seeds_producer_are_consumed() {
    let Some(place) = Place::apache_kafka() else { return };
    place.take_keyless_records();
    let mut process = place.start(card_service::NAME);
    let cards = process.ready_service(card_service::NAME);
    let produce = |line| {
        let record = golden("seed-go-producer.jsonl", line);
        assert_eq!((&record["key"], &record["headers"]), (&Value::Null, &json!([])));
        let value = record["value"].as_str().expect("a text");
        tool(&["console-producer", "--topic", &place.its_kafka().topic], &format!("{value}\n"));
        let event: Value = serde_json::from_str(value).expect("JSON");
        event["account_id"].as_str().and_then(|id| id.parse::<AccountId>().ok()).expect("an id")
    };
    let id = produce(0);
    let card =
        wait_until("the account gets a card", || Some(create_card(&cards, id)).filter(|answer| answer.status == 201));
    assert_eq!(produce(1), id);
    wait_until("the account is deleted", || {
        let answer = create_card(&cards, id);
        ((answer.status, error(&answer)) == (403, "cannot create card for deleted account")).then_some(())
    });
    let card = format!("/card?id={}", card.text("id"));
    wait_until("its card is deleted", || (cards.get(&card).expect(200)["deleted"] == json!(true)).then_some(()));
    assert_eq!(cards.get("/readyz").expect(200)["view"]["quarantined"], 0);
}
