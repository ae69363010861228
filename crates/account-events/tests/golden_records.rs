//! The contract, byte for byte, against the records in `testdata/`.

#![expect(clippy::unwrap_used, reason = "in a test, what fails here shows where")]

use account_events::{AccountEvent, AccountStatus, Envelope, EventType, Unintelligible, Version};
use event_log::{HeaderList, Record, RecordRef};
use serde_json::Value;

fn golden(file: &str) -> Vec<Record> {
    let bytes = |value: &Value| value.as_str().map(|text| text.as_bytes().to_vec());
    let header = |pair: &Value| (pair[0].as_str().unwrap().to_owned(), bytes(&pair[1]).expect("a header has a value"));
    let record = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let headers = line["headers"].as_array().unwrap().iter().map(header).collect();
        Record { key: bytes(&line["key"]), value: bytes(&line["value"]), headers }
    };
    let path = format!("{}/testdata/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap().lines().map(record).collect()
}

fn decode(record: &Record) -> Result<AccountEvent, Unintelligible> {
    AccountEvent::decode(RecordRef {
        partition: 0,
        offset: 0,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: record.headers.as_headers(),
    })
}

fn event(id: &str, event_type: EventType, status: AccountStatus, version: Option<Version>) -> AccountEvent {
    AccountEvent { event_type, account_id: id.parse().unwrap(), status, version }
}

const ID: &str = "01936f2e-7b1a-7c40-8000-0123456789ab";
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn ours() -> [(AccountEvent, &'static str); 2] {
    [
        (event(ID, EventType::Created, AccountStatus::Active, Some(1)), "2025-11-25T10:30:00.123Z"),
        (event(ID, EventType::StatusChanged, AccountStatus::Deleted, Some(7)), "2025-11-25T10:31:00Z"),
    ]
}

#[test]
fn what_the_account_service_writes_is_the_golden_record() {
    let written = ours()
        .map(|(event, time)| Envelope { event, version: event.version.unwrap(), time, traceparent: TRACE }.encode());
    assert_eq!(written.as_slice(), golden("tandem.jsonl"));
}

#[test]
fn a_consumer_reads_the_golden_records_back() {
    let read: Vec<_> = golden("tandem.jsonl").iter().map(|record| decode(record).unwrap()).collect();
    assert_eq!(read, ours().map(|(event, _)| event));
}

#[test]
fn the_seeds_go_producer_is_understood() {
    let read: Vec<_> = golden("seed-go-producer.jsonl").iter().map(|record| decode(record).unwrap()).collect();
    let id = "550e8400-e29b-41d4-a716-446655440000";
    let created = event(id, EventType::Created, AccountStatus::Active, None);
    assert_eq!(read, [created, event(id, EventType::StatusChanged, AccountStatus::Deleted, None)]);
}

#[test]
fn unknown_fields_and_headers_are_ignored() {
    let mut record = golden("tandem.jsonl").remove(0);
    record.headers.push("ce_dataschema", b"x");
    record.value =
        Some(format!(r#"{{"extra":[1,{{}}],"type":"account.created","account_id":"{ID}","status":"ACTIVE"}}"#).into());
    assert_eq!(decode(&record).unwrap(), ours()[0].0);
}

#[test]
fn each_kind_of_poison_is_named() {
    let event = |kind: &str, id: &str, status: &str| {
        Some(format!(r#"{{"type":"{kind}","account_id":"{id}","status":"{status}"}}"#).into_bytes())
    };
    let good = || event("account.created", ID, "ACTIVE");
    let sequence = |value: &str| HeaderList::from_iter([("ce_sequence", value)]);
    let none = HeaderList::default;
    let cases = [
        ("no_value", None, none()),
        ("too_large", Some(vec![b' '; 70_000]), none()),
        ("not_utf8", Some(vec![0xff, 0xfe, b'{']), none()),
        ("not_json", Some(Vec::new()), none()),
        ("not_json", good().map(|value| value[..40].to_vec()), none()),
        ("not_json", Some(r#"{"x":"#.repeat(10_000).into_bytes()), none()),
        ("not_an_event", Some(b"[1,2,3]".to_vec()), none()),
        ("not_an_event", Some(format!(r#"["account.created","{ID}","ACTIVE"]"#).into_bytes()), none()),
        ("not_an_event", Some(br#"{"type":"account.created","status":"ACTIVE"}"#.to_vec()), none()),
        ("not_an_event", Some(format!(r#"{{"type":1,"account_id":"{ID}","status":"ACTIVE"}}"#).into_bytes()), none()),
        ("unknown_type", event("account.renamed", ID, "ACTIVE"), none()),
        ("unknown_status", event("account.created", ID, "active"), none()),
        ("invalid_account_id", event("account.created", "42", "ACTIVE"), none()),
        ("invalid_sequence", good(), sequence("0")),
        ("invalid_sequence", good(), sequence("seven")),
        ("invalid_sequence", good(), sequence("1073741824")),
    ];
    for (code, value, headers) in cases {
        let error = decode(&Record { key: None, value, headers }).expect_err(code);
        assert_eq!(error.code(), code, "{error}");
    }
}
