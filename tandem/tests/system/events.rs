//! What stands in an event log, and what it says of the accounts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use account_events::{AccountEvent, AccountId, AccountStatus, Envelope, EventType, Version};
use card_service::accounts::view::{AccountView, account_view};
use event_log::{EventLog, Positions, Record, RecordRef};
use test_harness::{DEADLINE, wait_until};

/// An account event with where it stood.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) event: AccountEvent,
}

impl Seen {
    pub(crate) fn of(record: RecordRef<'_>, event: AccountEvent) -> Self {
        Seen { partition: record.partition, offset: record.offset, key: record.key.map(<[u8]>::to_vec), event }
    }
}

/// Everything in `log`, each partition's in order. A record that is no account event fails the test.
pub(crate) fn read_all(log: &dyn EventLog) -> Vec<Seen> {
    let ends = log.end_offsets(DEADLINE).expect("the log says where it ends");
    let mut reader = log.reader(&Positions::new()).expect("the log can be read");
    let mut seen = Vec::new();
    wait_until("all of the log is read", || {
        let mut apply = |record: RecordRef<'_>| {
            seen.push(Seen::of(record, AccountEvent::decode(record).expect("an account event")));
        };
        reader.poll(Duration::from_millis(50), &mut apply).expect("the log can be read");
        let reached = reader.positions();
        ends.iter().all(|(partition, end)| reached.get(partition).copied().unwrap_or(0) >= *end).then_some(())
    });
    seen
}

/// The view that the card service has after `events`.
pub(crate) fn view_of<'a>(events: impl IntoIterator<Item = &'a Seen>) -> AccountView {
    let (mut writer, view) = account_view();
    for seen in events {
        writer.apply(&seen.event);
    }
    view
}

/// The last version that the log has of each account. Panics if one goes backwards (ARCHITECTURE.md A3).
pub(crate) fn last_versions(events: &[Seen]) -> BTreeMap<AccountId, Version> {
    let mut last = BTreeMap::new();
    for Seen { event, .. } in events {
        let version = event.version.expect("this system's events have versions");
        let before = last.insert(event.account_id, version).unwrap_or(0);
        assert!(before <= version, "{} went back from version {before} to {version}", event.account_id);
    }
    last
}

/// Panics if a version of an account is in the log twice: relays that died have left nothing for others to repeat.
pub(crate) fn check_published_once(events: &[Seen]) {
    let mut seen = BTreeSet::new();
    for Seen { event, .. } in events {
        assert!(seen.insert((event.account_id, event.version)), "twice: {event:?}");
    }
}

/// An event as the account service publishes it.
pub(crate) fn record(account_id: AccountId, version: Version, status: AccountStatus) -> Record {
    let event_type = if version == 1 { EventType::Created } else { EventType::StatusChanged };
    let event = AccountEvent { event_type, account_id, status, version: Some(version) };
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    Envelope { event, version, time: "2025-11-25T10:30:00Z", traceparent }.encode()
}

/// An event as the seed's Go producer publishes it: its fields in alphabetical order, no key, no headers.
pub(crate) fn seed_record(account_id: AccountId, event_type: EventType, status: AccountStatus) -> Record {
    let (status, event_type) = (status.as_str(), event_type.as_str());
    let value = format!(r#"{{"account_id":"{account_id}","status":"{status}","type":"{event_type}"}}"#);
    Record { value: Some(value.into_bytes()), ..Record::default() }
}
