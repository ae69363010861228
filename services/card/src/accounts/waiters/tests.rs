use std::future::pending;
use std::time::{Duration, Instant};

use account_events::{AccountEvent, AccountStatus, EventType};
use event_log::Positions;
use futures_util::FutureExt as _;
use tokio::time::timeout;
use uuid::Uuid;

use super::*;
use crate::accounts::view::{ViewWriter, account_view};

/// Longer than any wake-up takes.
const DEADLINE: Duration = Duration::from_secs(20);

fn new(max_age: Option<Duration>) -> (ViewWriter, Arc<Waiters>) {
    let (writer, view) = account_view();
    (writer, Arc::new(Waiters::new(view, Arc::new(ViewStatus::new(max_age)))))
}

fn ready() -> (ViewWriter, Arc<Waiters>) {
    let (writer, waiters) = new(None);
    waiters.status.caught_up();
    (writer, waiters)
}

fn id(number: u128) -> AccountId {
    AccountId(Uuid::from_u128(number))
}

fn event(number: u128, version: Option<Version>) -> AccountEvent {
    let (event_type, status) = (EventType::StatusChanged, AccountStatus::Active);
    AccountEvent { event_type, account_id: id(number), status, version }
}

fn apply(writer: &mut ViewWriter, waiters: &Waiters, event: AccountEvent) {
    writer.apply(&event);
    waiters.wake([event.account_id]);
}

#[tokio::test]
async fn a_version_or_a_later_one_ends_the_wait_and_no_version_does_not() {
    let (mut writer, waiters) = ready();
    let mut waiting = pin!(waiters.until_known(id(1), Some(3), pending()));
    assert!(waiting.as_mut().now_or_never().is_none());
    for (event, ends) in
        [(event(1, None), false), (event(1, Some(2)), false), (event(2, Some(3)), false), (event(1, Some(4)), true)]
    {
        apply(&mut writer, &waiters, event);
        let state = waiting.as_mut().now_or_never();
        assert_eq!(state.is_some(), ends, "{event:?}");
    }
    assert_eq!(waiters.known(id(1), Some(4)).and_then(|state| state.version), Some(4));
    assert_eq!(waiters.known(id(1), Some(5)), None);
}

#[tokio::test]
async fn the_table_is_empty_when_nobody_waits() {
    let (mut writer, waiters) = ready();
    let is_empty = || waiters.len() == 0 && waiters.table.lock().is_empty();
    {
        let mut waiting: Vec<_> =
            (0..6).map(|number| Box::pin(waiters.until_known(id(number / 2), None, pending()))).collect();
        waiting.iter_mut().for_each(|waiting| assert!(waiting.now_or_never().is_none()));
        assert_eq!((waiters.len(), waiters.table.lock().len()), (6, 3));
        // One that is known, one that is dropped, and the others.
        apply(&mut writer, &waiters, event(0, Some(1)));
        assert!(waiting.remove(0).now_or_never().is_some());
        drop(waiting.remove(1));
        assert_eq!((waiters.len(), waiters.table.lock().len()), (4, 3));
    }
    assert!(is_empty());
    let ended = waiters.until_known(id(9), None, async {}).await;
    assert!(matches!(ended, Ok(None)) && is_empty());
}

#[tokio::test]
async fn as_many_wait_as_may_and_one_more_is_refused_until_one_leaves() {
    let (mut writer, waiters) = ready();
    let wait = |number: usize| Box::pin(waiters.until_known(id(number as u128), None, pending()));
    let mut waiting: Vec<_> = (0..MAX_WAITERS).map(wait).collect();
    waiting.iter_mut().for_each(|waiting| assert!(waiting.now_or_never().is_none()));
    assert!(matches!(wait(MAX_WAITERS).await, Err(CardError::TooManyWaiting)));
    drop(waiting.pop());
    let mut next = wait(MAX_WAITERS);
    assert!((&mut next).now_or_never().is_none());
    assert!(matches!(wait(0).await, Err(CardError::TooManyWaiting)));
    for number in 0..MAX_WAITERS - 1 {
        writer.apply(&event(number as u128, Some(1)));
    }
    waiters.wake((0..MAX_WAITERS).map(|number| id(number as u128)));
    for waiting in waiting {
        assert!(matches!(waiting.now_or_never(), Some(Ok(Some(_)))));
    }
    assert_eq!(waiters.len(), 1);
}

#[tokio::test]
async fn no_wake_up_is_lost_between_the_look_up_and_the_registration() {
    const ROUNDS: u128 = 100_000;
    let (mut writer, waiters) = ready();
    let (ask, asked) = std::sync::mpsc::sync_channel(0);
    let beside = Arc::clone(&waiters);
    let applying = std::thread::spawn(move || {
        for number in asked {
            apply(&mut writer, &beside, event(number, Some(1)));
        }
    });
    for number in 0..ROUNDS {
        ask.send(number).expect("the writer applies");
        let known = timeout(DEADLINE, waiters.until_known(id(number), Some(1), pending())).await;
        assert!(matches!(known, Ok(Ok(Some(_)))), "round {number}");
    }
    drop(ask);
    applying.join().expect("no panic");
}

#[tokio::test]
async fn a_view_that_is_not_ready_ends_no_wait_until_it_is() {
    let (mut writer, waiters) = new(None);
    let mut waiting = pin!(waiters.until_known(id(1), None, pending()));
    assert!(waiting.as_mut().now_or_never().is_none());
    apply(&mut writer, &waiters, event(1, Some(1)));
    waiters.wake_ready();
    assert!(waiting.as_mut().now_or_never().is_none());
    waiters.status.caught_up();
    waiters.wake_ready();
    assert!(matches!(waiting.now_or_never(), Some(Ok(Some(_)))));

    let (mut writer, waiters) = new(Some(Duration::ZERO));
    waiters.status.caught_up();
    apply(&mut writer, &waiters, event(1, Some(1)));
    let mut waiting = pin!(waiters.until_known(id(1), None, pending()));
    assert!(waiting.as_mut().now_or_never().is_none());
    waiters.wake_ready();
    assert!(waiting.as_mut().now_or_never().is_none(), "it is too old at any time");
}

#[test]
fn the_view_is_complete_since_a_request_if_it_has_reached_an_end_that_was_asked_for_later() {
    let positions = |offsets: [u64; 2]| (0..).zip(offsets).collect::<Positions>();
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let status = ViewStatus::new(None);
    assert!(!status.is_complete_since(start), "the log was never asked");
    status.read(4, 0, positions([2, 2]));
    status.caught_up();
    status.compare(&positions([2, 2]), after(1));
    assert!(status.is_complete_since(after(1)) && !status.is_complete_since(after(2)), "as of the last answer");
    status.compare(&positions([2, 4]), after(2));
    assert!(!status.is_complete_since(after(2)), "one partition has more");
    status.read(1, 0, positions([2, 3]));
    assert!(!status.is_complete_since(after(2)));
    status.read(1, 0, positions([2, 4]));
    assert!(status.is_complete_since(after(2)) && !status.is_complete_since(after(3)));
    // A topic that was recreated ends before the position, which is that of the old one.
    status.compare(&positions([1, 4]), after(3));
    assert!(!status.is_complete_since(after(3)));
    let more = Positions::from([(0, 2), (1, 4), (2, 1)]);
    status.compare(&more, after(4));
    assert!(!status.is_complete_since(after(4)), "a new partition counts");
    status.read(1, 0, Positions::from([(0, 2), (1, 4), (2, 1)]));
    assert!(status.is_complete_since(after(4)));
}
