//! `GET /events`: requests that are refused, slow readers, the number of streams, comments, and the stop of the service.

use std::time::{Duration, Instant};

use account_events::AccountStatus::Active;
use card_service::EventStreamSettings;
use test_harness::{Answer, EventStream, Http, wait_until};

use crate::service::{Settings, TestService, changed, created, new_id};

/// Two streams, with comments and an end that tests need not wait for.
fn quick() -> Settings {
    let (heartbeat, patience) = (Duration::from_millis(20), Duration::from_millis(200));
    Settings { events: EventStreamSettings { max_streams: 2, heartbeat, patience }, ..Settings::default() }
}

fn with_last_event_id(service: &Http, id: &str) -> Answer {
    service.send("GET", "/events", &[("Last-Event-ID", id)], Vec::new())
}

#[test]
fn wrong_requests_are_refused() {
    let service = TestService::start();
    let text = "account_id must be a UUID such as 550e8400-e29b-41d4-a716-446655440000";
    for id in ["", "x", "550e8400"] {
        let answer = service.get(&format!("/events?account_id={id}"));
        answer.expect_error(400, "invalid_account_id", text, Some("account_id"));
    }
    service.get("/events?from=end").expect_error(400, "invalid_from", "from must be start", Some("from"));
    for id in ["x", "0:1", ";0", "a b;0:1", ";0:-1", ";0:1;"] {
        let text = "Last-Event-ID must be the id of an earlier event";
        with_last_event_id(&service, id).expect_error(400, "invalid_last_event_id", text, Some("Last-Event-ID"));
    }
}

#[test]
fn a_view_that_is_catching_up_has_no_streams() {
    let service = TestService::start_behind(Settings::default(), |accounts, switches| {
        switches.hold_feed(true);
        accounts.publish(&[created(&new_id())]);
    });
    assert_eq!(service.get("/events").status, 503);
    service.switches.hold_feed(false);
    service.wait_until_ready();
    EventStream::open(&service, "/events", None);
}

#[test]
fn the_number_of_streams_is_bounded_and_a_caller_that_goes_makes_room() {
    let service = TestService::start_with(quick());
    let [first, mut second] = [(); 2].map(|()| EventStream::open(&service, "/events", None));
    let refused = service.get("/events");
    refused.expect_error(503, "overloaded", "too many event streams are open", None);
    assert_eq!(refused.header("retry-after"), "1");
    drop(first);
    wait_until("a place is free", || EventStream::try_open(&service, "/events", None));
    let id = new_id();
    service.tell(&[created(&id)]);
    assert_eq!(second.events(1), [(id, 1)]);
}

#[test]
fn a_caller_has_half_of_the_streams() {
    let settings = Settings { callers: &["alice", "bob"], ..quick() };
    let service = TestService::start_with(settings);
    let [alice, bob] = ["alice", "bob"].map(|name| service.of_caller(name));
    let of_alice = EventStream::open(&alice, "/events", None);
    alice.get("/events").expect_error(503, "overloaded", "too many event streams are open", None);
    let _of_bob = EventStream::open(&bob, "/events", None);
    drop(of_alice);
    wait_until("a place is free", || EventStream::try_open(&alice, "/events", None));
}

#[test]
fn four_streams_read_the_log_at_once_and_the_others_wait_with_comments() {
    const READERS: u64 = 4;
    const STREAMS: usize = 6;
    let settings = Settings { events: EventStreamSettings { max_streams: 2 * STREAMS, ..quick().events }, ..quick() };
    let service = TestService::start_with(settings);
    let id = new_id();
    service.tell(&[created(&id)]);
    let service = service.restart(); // the events before it are only in the log
    wait_until("the feed alone reads", || (service.switches.open_readers() == 1).then_some(()));
    service.switches.hold_feed(true);
    let mut streams: Vec<_> = (0..STREAMS).map(|_| EventStream::open(&service, "/events?from=start", None)).collect();
    wait_until("streams read the log", || (service.switches.open_readers() == 1 + READERS).then_some(()));
    for _ in 0..5 {
        streams.iter_mut().for_each(|stream| drop(stream.comment()));
        assert_eq!(service.switches.open_readers(), 1 + READERS);
    }
    // A caller that goes makes room.
    drop(streams.drain(..2));
    service.switches.hold_feed(false);
    for mut stream in streams {
        assert_eq!(stream.events(1), [(id.clone(), 1)]);
        assert!(service.switches.open_readers() <= 1 + READERS);
    }
    wait_until("the readers are closed", || (service.switches.open_readers() == 1).then_some(()));
}

#[test]
fn comments_come_while_nothing_happens() {
    let service = TestService::start_with(quick());
    let mut stream = EventStream::open(&service, "/events", None);
    let first = stream.comment();
    for _ in 0..5 {
        assert_eq!(stream.comment().id, first.id);
    }
}

#[test]
fn a_slow_reader_is_disconnected_and_the_feed_goes_on() {
    let service = TestService::start_with(quick());
    let id = new_id();
    let mut slow = EventStream::open(&service, "/events", None);
    let mut quick = EventStream::open(&service, &format!("/events?account_id={}", new_id()), None);
    // More than the buffers of a connection hold.
    for chunk in 0..6 {
        let changes: Vec<_> = (1..=20_000).map(|place| changed(&id, Active, chunk * 20_000 + place)).collect();
        service.tell(&changes);
    }
    let account = service.account();
    service.card("US", &account);
    // The place of the slow reader is free before it reads on.
    let mut next = wait_until("a place is free", || EventStream::try_open(&service, "/events", None));
    next.comment();
    quick.comment();
    let mut events = 0;
    while let Some(block) = slow.block() {
        events += usize::from(block.data.is_some());
    }
    assert!(events < 120_000, "all events were kept for the slow reader");
}

#[test]
fn a_stop_ends_open_streams_promptly() {
    let mut service = TestService::start();
    let mut streams: Vec<_> = (0..10).map(|_| EventStream::open(&service, "/events", None)).collect();
    streams.iter_mut().for_each(|stream| {
        stream.comment();
    });
    let started = Instant::now();
    service.stop_and_read_quarantine();
    // The drain of connections takes 10 seconds if one stays open.
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    assert!(streams.iter_mut().all(|stream| stream.block().is_none()));
}
