use account_events::{AccountStatus, EventType};

use super::*;

fn positions(offset: u64) -> Positions {
    Positions::from([(0, offset)])
}

/// The events of partition 0 from `start` up to `end`.
fn push(ring: &EventRing, start: u64, end: u64) {
    let event = AccountEvent {
        event_type: EventType::Created,
        account_id: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
        status: AccountStatus::Active,
        version: Some(1),
    };
    let events = (start..end).map(|offset| PlacedEvent { event, partition: 0, offset, time: None }).collect();
    ring.push(Some(events), &positions(start), &positions(end));
}

/// A ring that begins at offset 10.
fn ring() -> (Arc<EventRing>, Listener) {
    let status = ViewStatus::new(None);
    status.read(10, 0, positions(10));
    let ring = Arc::new(EventRing::new(Clock::system()));
    let listener = ring.listen(&status);
    (ring, listener)
}

fn offsets(next: Next) -> Vec<u64> {
    let Next::Batches(batches) = next else { panic!("{next:?}") };
    batches.iter().flat_map(|batch| batch.events.iter().map(|event| event.offset)).collect()
}

#[test]
fn a_stream_takes_each_batch_once_and_one_that_begins_later_takes_those_after_its_position() {
    let (ring, listener) = ring();
    let (mut early, mut late) = (listener.place, listener.place);
    assert!(matches!(ring.next(&mut early, &positions(10)), Next::Nothing));
    push(&ring, 10, 12);
    push(&ring, 12, 13);
    assert_eq!(offsets(ring.next(&mut early, &positions(10))), [10, 11, 12]);
    assert!(matches!(ring.next(&mut early, &positions(13)), Next::Nothing));
    assert_eq!(offsets(ring.next(&mut late, &positions(12))), [12]);
    assert!(matches!(ring.next(&mut listener.place.clone(), &positions(9)), Next::TooOld));
}

#[test]
fn a_stream_that_does_not_keep_up_falls_behind_and_memory_is_bounded() {
    let (ring, listener) = ring();
    let mut slow = listener.place;
    assert!(matches!(ring.next(&mut slow, &positions(10)), Next::Nothing));
    for batch in 0..MAX_EVENTS as u64 / 500 + 1 {
        push(&ring, 10 + batch * 500, 10 + (batch + 1) * 500);
    }
    assert!(matches!(ring.next(&mut slow, &positions(10)), Next::FellBehind));
    assert!(ring.state.lock().ring.as_ref().is_some_and(|ring| ring.events <= MAX_EVENTS));
}

#[test]
fn batches_that_were_not_recorded_are_read_from_the_log_and_a_replaced_log_is_a_gap() {
    let (ring, listener) = ring();
    let mut place = listener.place;
    assert!(matches!(ring.next(&mut place, &positions(10)), Next::Nothing));
    ring.push(None, &positions(10), &positions(12));
    push(&ring, 12, 13);
    assert!(matches!(ring.next(&mut place, &positions(10)), Next::TooOld));
    assert_eq!(offsets(ring.next(&mut place, &positions(12))), [12]);
    push(&ring, 0, 2);
    assert!(matches!(ring.next(&mut place, &positions(13)), Next::Replaced));
    assert_eq!(offsets(ring.next(&mut place, &positions(0))), [0, 1]);
}

#[test]
fn a_stream_outside_of_the_ring_learns_that_the_log_was_replaced_also_by_a_longer_one() {
    let (ring, listener) = ring();
    let mut outside = listener.place;
    assert!(matches!(ring.next(&mut outside, &positions(7)), Next::TooOld));
    assert!(!ring.has(outside, &positions(7)));
    push(&ring, 0, 8);
    // A gap, so that the ring begins after the stream's position again.
    ring.push(None, &positions(8), &positions(20));
    assert!(ring.has(outside, &positions(7)), "it need not read on");
    assert!(matches!(ring.next(&mut outside, &positions(7)), Next::Replaced));
    assert!(matches!(ring.next(&mut outside, &positions(0)), Next::TooOld), "once");
    // A reader that goes on at the start of a topic that was recreated.
    push(&ring, 20, 22);
    ring.push(Some(Vec::new()), &positions(22), &positions(3));
    assert!(matches!(ring.next(&mut outside, &positions(22)), Next::Replaced));
    assert!(ring.has(outside, &positions(0)), "the ring has the topic from its first record");
}

#[test]
fn nothing_is_kept_while_nobody_listens() {
    let (ring, listener) = ring();
    push(&ring, 10, 12);
    drop(listener);
    push(&ring, 12, 13);
    assert!(!ring.is_listened() && ring.state.lock().ring.is_none());
}
