use std::sync::{Mutex, mpsc};

use super::queue::MAX_QUEUED;
use super::*;

/// Fails a batch that contains a 13, and refuses odd numbers.
struct Numbers {
    batches: mpsc::Sender<Vec<u32>>,
    hold: mpsc::Receiver<()>,
}

impl Committer for Numbers {
    type Command = u32;
    type Outcome = Result<u32, &'static str>;

    fn commit(&mut self, commands: Vec<u32>, _is_failing: bool) -> Result<Vec<Self::Outcome>, StoreError> {
        if commands.is_empty() {
            return Err(StoreError::Unavailable("thirteen still".to_owned()));
        }
        self.batches.send(commands.clone()).expect("the test listens");
        self.hold.recv().expect("the test continues");
        if commands.contains(&13) {
            return Err(StoreError::Unavailable("thirteen".to_owned()));
        }
        Ok(commands.into_iter().map(|n| if n % 2 == 0 { Ok(n) } else { Err("odd") }).collect())
    }
}

type Started =
    (GroupCommit<u32, Result<u32, &'static str>>, JoinHandle<()>, mpsc::Receiver<Vec<u32>>, mpsc::Sender<()>);

fn start() -> Started {
    let (batches, seen) = mpsc::channel();
    let (go, hold) = mpsc::channel();
    let (numbers, writer) = GroupCommit::start("numbers", Numbers { batches, hold }).expect("a thread");
    (numbers, writer, seen, go)
}

#[test]
fn what_queued_up_during_a_commit_is_one_batch_and_a_rule_fails_alone() {
    let (numbers, writer, seen, go) = start();
    let first = numbers.enqueue(2).expect("room");
    assert_eq!(seen.recv().expect("a batch"), [2]);
    let more: Vec<_> = [4, 5, 6].into_iter().map(|n| numbers.enqueue(n).expect("room")).collect();
    go.send(()).expect("held");
    assert_eq!(seen.recv().expect("a batch"), [4, 5, 6]);
    go.send(()).expect("held");
    assert_eq!(first.blocking_recv().expect("answered").expect("committed"), Ok(2));
    let outcomes: Vec<_> = more.into_iter().map(|a| a.blocking_recv().expect("answered").expect("committed")).collect();
    assert_eq!(outcomes, [Ok(4), Err("odd"), Ok(6)]);
    numbers.stop();
    writer.join().expect("a clean end");
}

#[test]
fn a_failed_transaction_fails_all_of_its_commands_and_none_after_it() {
    let (numbers, writer, seen, go) = start();
    let lost = numbers.enqueue(13).expect("room");
    seen.recv().expect("a batch");
    let kept = numbers.enqueue(8).expect("room");
    go.send(()).expect("held");
    go.send(()).expect("held");
    assert!(matches!(lost.blocking_recv().expect("answered"), Err(StoreError::Unavailable(_))));
    assert_eq!(kept.blocking_recv().expect("answered").expect("committed"), Ok(8));
    assert_eq!(numbers.failure(), None, "the last transaction was no failure");
    numbers.stop();
    writer.join().expect("a clean end");
}

/// Doubles numbers and counts the committed ones. The test supplies the sync.
struct Doubled(Arc<Mutex<u32>>, Mutex<Option<Syncer>>);

impl Committer for Doubled {
    type Command = u32;
    type Outcome = u32;

    fn commit(&mut self, commands: Vec<u32>, _is_failing: bool) -> Result<Vec<u32>, StoreError> {
        *self.0.lock().expect("no panic") += commands.len() as u32;
        Ok(commands.into_iter().map(|n| n * 2).collect())
    }

    fn sync(&self) -> Option<Syncer> {
        self.1.lock().expect("no panic").take()
    }
}

#[test]
fn nothing_is_answered_before_its_sync_and_the_next_is_committed_beside_it() {
    let (began, seen) = mpsc::channel();
    let (go, how) = mpsc::channel::<Result<(), StoreError>>();
    let syncer: Syncer = Box::new(move || {
        began.send(()).expect("the test listens");
        how.recv().expect("the test continues")
    });
    let committed = Arc::default();
    let doubled = Doubled(Arc::clone(&committed), Mutex::new(Some(syncer)));
    let (doubled, writer) = GroupCommit::start("doubled", doubled).expect("a thread");
    let mut first = doubled.enqueue(1).expect("room");
    seen.recv().expect("a sync");
    let second = doubled.enqueue(2).expect("room");
    while *committed.lock().expect("no panic") < 2 {
        std::thread::yield_now();
    }
    assert!(first.try_recv().is_err(), "it is committed and not synced");
    go.send(Ok(())).expect("held");
    assert_eq!(first.blocking_recv().expect("answered").expect("durable"), 2);
    seen.recv().expect("another sync");
    go.send(Err(StoreError::Unavailable("a bad disk".to_owned()))).expect("held");
    assert!(matches!(second.blocking_recv().expect("answered"), Err(StoreError::Unavailable(_))));
    // Empty transactions follow without a request, until one succeeds.
    seen.recv().expect("another sync");
    assert!(doubled.failure().is_some_and(|failure| failure.contains("a bad disk")));
    go.send(Ok(())).expect("held");
    doubled.stop();
    drop(go);
    writer.join().expect("a clean end");
    assert_eq!(doubled.failure(), None);
}

#[test]
fn a_failure_shows_until_a_transaction_succeeds_and_a_panic_for_ever() {
    let (numbers, writer, seen, go) = start();
    let lost = numbers.enqueue(13).expect("room");
    seen.recv().expect("a batch");
    go.send(()).expect("held");
    assert!(lost.blocking_recv().expect("answered").is_err());
    assert!(numbers.failure().is_some_and(|failure| failure.contains("thirteen")));
    drop(go);
    let unanswered = numbers.enqueue(2).expect("room");
    writer.join().expect_err("the committer panics once the test has dropped its channel");
    assert!(unanswered.blocking_recv().is_err());
    assert!(numbers.failure().is_some_and(|failure| failure.contains("ended")));
}

#[test]
fn what_was_accepted_before_the_stop_is_committed_and_what_comes_after_is_refused() {
    let (numbers, writer, _seen, go) = start();
    let answers = [2, 4].map(|n| numbers.enqueue(n).expect("room"));
    numbers.stop();
    go.send(()).expect("held");
    go.send(()).expect("held");
    writer.join().expect("a clean end");
    let outcomes = answers.map(|answer| answer.blocking_recv().expect("answered").expect("committed"));
    assert_eq!(outcomes, [Ok(2), Ok(4)]);
    assert!(matches!(numbers.submit_blocking(6), Err(StoreError::Stopping)));
}

#[test]
fn more_than_may_wait_is_refused_at_once() {
    let (numbers, _writer, seen, _go) = start();
    let _held = numbers.enqueue(2).expect("room");
    seen.recv().expect("a batch");
    let accepted = (0..=MAX_QUEUED).map_while(|_| numbers.enqueue(2).ok()).count();
    assert_eq!(accepted, MAX_QUEUED);
    assert!(matches!(numbers.submit_blocking(2), Err(StoreError::Overloaded)));
}
