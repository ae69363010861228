//! The decoder meets records that anybody may have written.

use event_log::{HeaderList, RecordRef};
use proptest::option;
use proptest::prelude::*;
use test_harness::mangled;

use super::*;
use crate::digest::LogLine;
use crate::{AccountId, Envelope, Owner, TraceParent};

fn valid() -> event_log::Record {
    let account_id = AccountId("550e8400-e29b-41d4-a716-446655440000".parse().unwrap());
    let event =
        AccountEvent { event_type: EventType::Created, account_id, status: AccountStatus::Active, version: Some(1) };
    Envelope { event, version: 1, time: "2026-11-30T10:30:00.123Z", traceparent: "" }.encode()
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let spaced = br#"{ "type": "account.deleted", "account_id": "550E8400-E29B-41D4-A716-446655440000", "status": "DELETED", "x": [1] }"#;
    mangled(vec![valid().value.unwrap(), spaced.to_vec()])
}

proptest! {
    #[test]
    fn a_record_is_an_event_that_encodes_to_the_same_event_or_it_is_refused(
        value in option::of(value()),
        key in option::of(mangled(vec![valid().key.unwrap()])),
        sequence in option::of(mangled(vec![b"1".to_vec(), b"1073741823".to_vec()])),
    ) {
        let mut headers = HeaderList::default();
        if let Some(sequence) = &sequence {
            headers.push("ce_sequence", sequence);
        }
        let (key, value) = (key.as_deref(), value.as_deref());
        let record = RecordRef { partition: 0, offset: 7, key, value, headers: headers.as_headers() };
        let _ = LogLine::of(record);
        if let Ok(event) = AccountEvent::decode(record) {
            let version = event.version.unwrap_or(1);
            let again = Envelope { event, version, time: "", traceparent: "" }.encode();
            let (key, value) = (again.key.as_deref(), again.value.as_deref());
            let again = RecordRef { partition: 0, offset: 7, key, value, headers: again.headers.as_headers() };
            let again = AccountEvent::decode(again).unwrap();
            let version = if is_first_version(&event) { 1 } else { version };
            prop_assert_eq!(again, AccountEvent { version: Some(version), ..event });
        }
    }

    #[test]
    fn notes_and_trace_contexts_are_read_or_refused(text in test_harness::mangled_text(&[
        r#"{"database_id":"7f3a","topic_id":"x","event_sequence_high":7,"account_sequence_high":3}"#,
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ])) {
        if let Some(owner) = Owner::from_note(&text) {
            prop_assert!(Owner::from_note(&owner.to_note()).is_some());
        }
        let _ = TraceParent::parse(&text);
    }
}
