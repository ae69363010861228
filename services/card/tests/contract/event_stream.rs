//! `GET /events`: what a stream brings, where it begins and how it is resumed.

use account_events::AccountStatus::{Active, Blocked, Deleted};
use account_events::{Owner, PUBLISHER};
use clock::Clock;
use event_log::{Positions, Publisher, Record, partition_of_key};
use serde_json::json;
use test_harness::{EventStream, wait_until};

use crate::service::{START_MICROS, Settings, TestService, changed, created, new_id};

/// `count` events of one account, from version `first` on.
fn versions(id: &str, first: u32, count: u32) -> Vec<Record> {
    (first..first + count)
        .map(|version| if version == 1 { created(id) } else { changed(id, Active, version) })
        .collect()
}

/// What [`EventStream::events`] gives for them.
fn expected(id: &str, first: u64, count: u64) -> Vec<(String, u64)> {
    (first..first + count).map(|version| (id.to_owned(), version)).collect()
}

fn text(positions: &Positions) -> String {
    let texts: Vec<_> = positions.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect();
    texts.join(",")
}

#[test]
fn a_stream_begins_at_the_present_and_brings_each_event_with_its_place_time_and_age() {
    // The clock stands half a second after the commit of all events.
    let clock = Clock::fixed(START_MICROS + 500_000);
    let service = TestService::start_with(Settings { clock, ..Settings::default() });
    let id = new_id();
    service.tell(&[created(&id)]);
    let mut stream = EventStream::open(&service, "/events", None);
    stream.comment();
    service.tell(&[changed(&id, Blocked, 2), changed(&id, Deleted, 3)]);
    let partition = partition_of_key(id.as_bytes(), 3);
    let mut place = None;
    for (version, status) in [(2, "BLOCKED"), (3, "DELETED")] {
        let event = stream.event();
        let offset = event.data.as_ref().and_then(|data| data["offset"].as_u64()).expect("an offset");
        let data = json!({
            "type": "account.status_changed", "account_id": id, "status": status, "version": version,
            "partition": partition, "offset": offset, "time": "2025-11-25T10:30:00Z", "age_seconds": 0.5,
        });
        assert_eq!((event.name.as_str(), event.data), ("", Some(data)));
        assert!(place.replace(offset) < Some(offset));
        let next = format!("{partition}:{}", offset + 1);
        assert!(event.id.starts_with(';') && event.id[1..].split(',').any(|position| position == next), "{}", event.id);
    }
}

#[test]
fn an_event_without_headers_has_neither_version_nor_time() {
    let service = TestService::start();
    let id = new_id();
    let mut stream = EventStream::open(&service, "/events", None);
    let value = format!(r#"{{"account_id":"{id}","status":"BLOCKED","type":"account.status_changed"}}"#);
    service.tell(&[Record { key: Some(id.clone().into()), value: Some(value.into()), ..Record::default() }]);
    let data = stream.event().data.expect("data");
    assert_eq!([&data["version"], &data["time"], &data["age_seconds"]], [&json!(null); 3]);
    assert_eq!(data["account_id"], id);
}

#[test]
fn a_filtered_stream_brings_one_account_and_its_comments_go_on() {
    let mut settings = Settings::default();
    settings.events.heartbeat = std::time::Duration::from_millis(20);
    let service = TestService::start_with(settings);
    let (id, other) = (new_id(), new_id());
    let mut stream = EventStream::open(&service, &format!("/events?account_id={id}"), None);
    service.tell(&[created(&other), created(&id), changed(&other, Blocked, 2), changed(&id, Blocked, 2)]);
    service.tell(&versions(&other, 3, 10));
    assert_eq!(stream.events(2), expected(&id, 1, 2));
    // The positions in the comments go on with the events of the other account.
    let known: Positions = service.ends();
    wait_until("a comment has the present position", || {
        (stream.comment().id == format!(";{}", text(&known))).then_some(())
    });
}

#[test]
fn a_stream_is_resumed_from_the_ring() {
    let service = TestService::start();
    let id = new_id();
    let mut other = EventStream::open(&service, "/events", None);
    let mut stream = EventStream::open(&service, "/events", None);
    service.tell(&versions(&id, 1, 5));
    assert_eq!(stream.events(1), expected(&id, 1, 1));
    let last = stream.event().id;
    drop(stream);
    service.tell(&versions(&id, 6, 3));
    assert_eq!(other.events(8), expected(&id, 1, 8));
    // Only the ring can have the events.
    service.switches.set_away(true);
    let mut resumed = EventStream::open(&service, "/events", Some(&last));
    assert_eq!(resumed.events(6), expected(&id, 3, 6));
    service.switches.set_away(false);
    service.publish(&versions(&id, 9, 1));
    assert_eq!(resumed.events(1), expected(&id, 9, 1));
}

#[test]
fn a_stream_is_resumed_from_the_log_after_a_restart_with_each_event_once() {
    let service = TestService::start();
    let id = new_id();
    let mut stream = EventStream::open(&service, "/events", None);
    service.tell(&versions(&id, 1, 5));
    assert_eq!(stream.events(2), expected(&id, 1, 2));
    let last = stream.event().id;
    drop(stream);
    service.tell(&versions(&id, 6, 600));
    let service = service.restart();
    let mut resumed = EventStream::open(&service, "/events", Some(&last));
    assert_eq!(resumed.events(602), expected(&id, 4, 602));
    service.publish(&versions(&id, 606, 3));
    assert_eq!(resumed.events(3), expected(&id, 606, 3));
}

#[test]
fn a_stream_from_the_start_has_every_record_of_the_log() {
    let service = TestService::start();
    let (id, other) = (new_id(), new_id());
    service.tell(&versions(&id, 1, 20));
    service.tell(&versions(&other, 1, 20));
    let mut all = EventStream::open(&service, "/events?from=start", None);
    let mut events = all.events(40);
    events.sort_by_key(|(account, _)| *account != id);
    assert_eq!(events, [expected(&id, 1, 20), expected(&other, 1, 20)].concat());
    let mut filtered = EventStream::open(&service, &format!("/events?from=start&account_id={other}"), None);
    assert_eq!(filtered.events(20), expected(&other, 1, 20));
    service.tell(&versions(&other, 21, 2));
    assert_eq!((all.events(2), filtered.events(2)), (expected(&other, 21, 2), expected(&other, 21, 2)));
}

#[test]
fn a_position_of_another_instance_is_resumed() {
    let service = TestService::start();
    let (_folder, beside) = service.start_beside();
    wait_until("the other instance is ready", || (beside.http().get("/readyz").status == 200).then_some(()));
    let id = new_id();
    let mut stream = EventStream::open(&service, "/events", None);
    service.tell(&versions(&id, 1, 10));
    assert_eq!(stream.events(3), expected(&id, 1, 3));
    let last = stream.event().id;
    let mut resumed = EventStream::open(beside.http(), "/events", Some(&last));
    assert_eq!(resumed.events(6), expected(&id, 5, 6));
    service.tell(&versions(&id, 11, 2));
    assert_eq!(resumed.events(2), expected(&id, 11, 2));
}

#[test]
fn a_position_before_the_start_of_the_log_is_a_gap() {
    let service = TestService::start();
    let id = new_id();
    let partition = partition_of_key(id.as_bytes(), 3);
    service.tell(&versions(&id, 1, 10));
    let mut all = EventStream::open(&service, "/events?from=start", None);
    let ids: Vec<_> = (0..10).map(|_| all.event().id).collect();
    let offset_of = |id: &str| -> u64 {
        let mut positions = id[1..].split(',').filter_map(|position| position.split_once(':'));
        let (_, offset) = positions.find(|(found, _)| *found == partition.to_string()).expect("a position");
        offset.parse().expect("an offset")
    };
    drop(all);
    service.switches.delete_before(Positions::from([(partition, offset_of(&ids[3]))]));
    let mut resumed = EventStream::open(&service, "/events", Some(&ids[1]));
    let gap = resumed.event();
    assert_eq!((gap.name.as_str(), gap.data), ("gap", Some(json!({"reason": "records_deleted"}))));
    assert_eq!(offset_of(&gap.id), offset_of(&ids[3]));
    assert_eq!(resumed.events(6), expected(&id, 5, 6));
    // A stream from the start begins at the oldest record, so it misses nothing.
    assert_eq!(EventStream::open(&service, "/events?from=start", None).events(6), expected(&id, 5, 6));
}

/// The note of a log with this id.
fn note(log_id: &str) -> String {
    let owner = Owner {
        database_id: "a".to_owned(),
        session: "s".to_owned(),
        account_sequence_high: 1,
        number_key: String::new(),
        log_id: log_id.to_owned(),
        is_resync_open: false,
        last_event: None,
    };
    owner.to_note()
}

/// A service on a log with this id and these records, and the publisher of the log.
fn start_on_log(log_id: &str, records: &[Record], settings: Settings) -> (TestService, Box<dyn Publisher>) {
    let mut owner = None;
    let service = TestService::start_behind(settings, |accounts, _| {
        let mut publisher = accounts.log().publisher(PUBLISHER).expect("a publisher");
        publisher.set_note(note(log_id));
        publisher.publish(records, records.len() as u64).expect("a log that is there");
        owner = Some(publisher);
    });
    service.wait_until_ready();
    (service, owner.expect("a publisher"))
}

#[test]
fn a_log_that_is_replaced_is_a_gap_in_open_streams_and_is_read_from_its_start() {
    let id = new_id();
    let (service, mut publisher) = start_on_log("this", &versions(&id, 1, 4), Settings::default());
    let mut stream = EventStream::open(&service, "/events", None);
    assert!(stream.comment().id.starts_with("this;"));
    publisher.set_note(note("new"));
    publisher.publish(&versions(&id, 5, 2), 6).expect("a log that is there");
    assert_eq!(stream.events(2), expected(&id, 5, 2));
    let gap = stream.event();
    assert_eq!((gap.name.as_str(), gap.data), ("gap", Some(json!({"reason": "other_log"}))));
    assert!(gap.id.starts_with("new;"), "{}", gap.id);
    assert_eq!(stream.events(6), expected(&id, 1, 6));
}

#[test]
fn a_log_that_is_replaced_is_a_gap_in_a_stream_that_reads_the_log_itself() {
    let mut settings = Settings::default();
    settings.events.heartbeat = std::time::Duration::from_millis(20);
    let id = new_id();
    let (service, mut publisher) = start_on_log("this", &versions(&id, 1, 4), settings);
    let last = format!("this;{}:2", partition_of_key(id.as_bytes(), 3));
    service.switches.hold_feed(true);
    let mut stream = EventStream::open(&service, "/events", Some(&last));
    stream.comment();
    // The second comment comes once the stream has a reader.
    stream.comment();
    service.switches.stick_open_readers();
    service.switches.hold_feed(false);
    publisher.set_note(note("new"));
    publisher.publish(&versions(&id, 5, 2), 6).expect("a log that is there");
    let gap = stream.event();
    assert_eq!((gap.name.as_str(), gap.data), ("gap", Some(json!({"reason": "other_log"}))));
    assert!(gap.id.starts_with("new;"), "{}", gap.id);
    assert_eq!(stream.events(6), expected(&id, 1, 6));
}

#[test]
fn a_position_of_another_log_or_beyond_the_end_is_a_gap_and_the_log_is_read_from_its_start() {
    let id = new_id();
    let (service, _publisher) = start_on_log("this", &versions(&id, 1, 4), Settings::default());
    let partition = partition_of_key(id.as_bytes(), 3);
    for last in [format!("other;{partition}:3"), format!("this;{partition}:1000")] {
        let mut stream = EventStream::open(&service, "/events", Some(&last));
        let gap = stream.event();
        let expected_gap = ("gap", "this;", Some(json!({"reason": "other_log"})));
        assert_eq!((gap.name.as_str(), gap.id.as_str(), gap.data), expected_gap, "{last}");
        assert_eq!(stream.events(3), expected(&id, 1, 3), "{last}");
        let mut resumed = EventStream::open(&service, "/events", Some(&stream.event().id));
        assert!(resumed.comment().id.starts_with("this;"));
    }
}
