//! Group commit: one transaction and one sync for as many requests as have queued up while the last one was on its way.
//!
//! There is no timer: a lone request is committed at once, and the more wait the larger the batch. It is what makes a
//! durable write nearly as cheap as one in memory. One thread owns the connection and all
//! that must be decided in order; an answer is given after the commit is durable (ARCHITECTURE.md A2).
//!
//! ```text
//! submit ──queue──▶ writer: decide, commit ──▶ sync: make durable, answer
//! ```
//!
//! Where a committer's commits are not durable by themselves, another thread syncs them while the writer is at the next one. It
//! syncs once for all that was committed meanwhile.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::StoreError;

/// Commands in one transaction, at most: beyond this a larger batch no longer makes a command cheaper, and the first
/// one in it waits longer.
const MAX_BATCH: usize = 1_024;

/// Commands that wait, at most. One more is refused at once instead of waiting longer than its client will.
const MAX_QUEUED: usize = 8_192;

/// How long without a command until [`Committer::idle`] is called.
const IDLE: Duration = Duration::from_millis(250);

/// Commits that wait for a sync, at most. A slow disk has them all synced at once; more would only be smaller ones.
const MAX_UNSYNCED: usize = 1;

/// Makes durable what was committed before it is called.
pub type Syncer = Box<dyn FnMut() -> Result<(), StoreError> + Send>;

/// What one writer thread does with the commands that queued up.
pub trait Committer: Send + 'static {
    /// A request, reduced to what the transaction must decide.
    type Command: Send + 'static;
    /// What it came to: done, or the rule that forbids it.
    type Outcome: Send + 'static;

    /// Applies `commands`, possibly none, in order in one transaction. When it returns `Ok`, all is committed, and durable too
    /// unless there is a [`sync`](Committer::sync), and there is one outcome a command, in order; a command that breaks a rule says so in its outcome and leaves its neighbours alone.
    /// When it returns `Err`, nothing of the batch is written; unless a server was lost during its commit, then all of it
    /// may be.
    ///
    /// A batch that changes nothing need not be written, unless `is_failing`: the last transaction failed, and this one is to
    /// tell whether that is over.
    fn commit(&mut self, commands: Vec<Self::Command>, is_failing: bool) -> Result<Vec<Self::Outcome>, StoreError>;

    /// What makes commits durable, from a thread of its own beside the next commits; `None` if they are so by themselves.
    fn sync(&self) -> Option<Syncer> {
        None
    }

    /// Called when no command has come for a while, and before the end: the place for work that can wait for a quiet
    /// moment, which a busy committer takes along in its next transaction.
    fn idle(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

enum Message<C, O> {
    Command(C, Answer<O>),
    Stop,
}

type Answer<O> = oneshot::Sender<Result<O, StoreError>>;

/// What a commit came to, and who waits for that.
struct Committed<O> {
    result: Result<Vec<O>, StoreError>,
    answers: Vec<Answer<O>>,
}

/// The handlers' end of the queue to one writer thread, whichever database that writes to: commands `C` come to outcomes `O`.
pub struct GroupCommit<C, O> {
    queue: SyncSender<Message<C, O>>,
    health: Arc<Health>,
}

/// Whether the writer can write. Its failures are logged when they begin and when they are over, not each: while a disk is
/// full, lines would only make it worse.
#[derive(Default)]
struct Health {
    failure: Mutex<Option<String>>,
}

impl Health {
    fn is_failing(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn note(&self, result: Result<(), &StoreError>) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Err(error) => {
                if failure.replace(error.to_string()).is_none() {
                    tracing::error!(%error, "a transaction failed");
                }
            }
            Ok(()) => {
                if failure.take().is_some() {
                    tracing::info!("the database takes transactions again");
                }
            }
        }
    }
}

/// Says so if the writer ends by a panic.
struct EndNote(Arc<Health>);

impl Drop for EndNote {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.0.note(Err(&StoreError::Unavailable("its writer has ended".to_owned())));
    }
}

impl<C, O> Clone for GroupCommit<C, O> {
    fn clone(&self) -> Self {
        GroupCommit { queue: self.queue.clone(), health: Arc::clone(&self.health) }
    }
}

impl<C: Send + 'static, O: Send + 'static> GroupCommit<C, O> {
    /// Starts the writer thread, called `name`. It ends after [`GroupCommit::stop`]; join the handle to know that
    /// everything accepted before is durable.
    pub fn start(
        name: &str,
        committer: impl Committer<Command = C, Outcome = O>,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (queue, commands) = sync_channel(MAX_QUEUED);
        let health = Arc::new(Health::default());
        let answering = Answering { health: Arc::clone(&health), runtime: Handle::try_current().ok() };
        let (next, sync_thread) = match committer.sync() {
            None => (Next::Answer(answering), None),
            Some(sync) => {
                let (unsynced, committed) = sync_channel(MAX_UNSYNCED);
                let thread = Builder::new().name(format!("{name}-sync"));
                (Next::Sync(unsynced), Some(thread.spawn(move || sync_and_answer(sync, &committed, &answering))?))
            }
        };
        let noted = Arc::clone(&health);
        let writer = Builder::new().name(name.to_owned()).spawn(move || {
            let _on_panic = EndNote(Arc::clone(&noted));
            run(committer, &commands, &noted, next);
            // It answers what it has been handed.
            if sync_thread.is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("the thread that syncs had panicked");
            }
        })?;
        Ok((GroupCommit { queue, health }, writer))
    }

    /// Hands `command` to the writer and waits until it is durable.
    pub async fn submit(&self, command: C) -> Result<O, StoreError> {
        let answer = self.enqueue(command)?;
        answer.await.unwrap_or(Err(StoreError::Stopping))
    }

    /// As [`GroupCommit::submit`], for a thread that may block.
    pub fn submit_blocking(&self, command: C) -> Result<O, StoreError> {
        let answer = self.enqueue(command)?;
        answer.blocking_recv().unwrap_or(Err(StoreError::Stopping))
    }

    /// Why nothing can be written now, if so: what the last transaction failed with.
    pub fn failure(&self) -> Option<String> {
        self.health.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn enqueue(&self, command: C) -> Result<oneshot::Receiver<Result<O, StoreError>>, StoreError> {
        let (answer, answered) = oneshot::channel();
        match self.queue.try_send(Message::Command(command, answer)) {
            Ok(()) => Ok(answered),
            Err(TrySendError::Full(_)) => Err(StoreError::Overloaded),
            Err(TrySendError::Disconnected(_)) => Err(StoreError::Stopping),
        }
    }

    /// Tells the writer to finish what was accepted so far and end.
    pub fn stop(&self) {
        // It fails only if the writer has ended already.
        let _ = self.queue.send(Message::Stop);
    }
}

/// Where the writer takes what it has committed.
enum Next<O> {
    Answer(Answering),
    Sync(SyncSender<Committed<O>>),
}

impl<O: Send + 'static> Next<O> {
    fn take(&self, committed: Committed<O>) {
        match self {
            Next::Answer(answering) => answering.answer(committed),
            // Where nobody takes it, those who wait are told by the end of their channels.
            Next::Sync(unsynced) => drop(unsynced.send(committed)),
        }
    }
}

fn run<C: Committer>(
    mut committer: C,
    queue: &Receiver<Message<C::Command, C::Outcome>>,
    health: &Health,
    next: Next<C::Outcome>,
) {
    let mut stopping = false;
    while !stopping {
        let first = match queue.recv_timeout(IDLE) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) if health.is_failing() => {
                // An empty transaction tells whether that is over: no request need be spent on it.
                next.take(Committed { result: committer.commit(Vec::new(), true), answers: Vec::new() });
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {
                health.note(committer.idle().as_ref().map(drop));
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let mut commands = Vec::new();
        let mut answers = Vec::new();
        for message in std::iter::once(first).chain(std::iter::from_fn(|| queue.try_recv().ok())) {
            match message {
                Message::Command(command, answer) => {
                    commands.push(command);
                    answers.push(answer);
                }
                Message::Stop => stopping = true,
            }
            if stopping || commands.len() == MAX_BATCH {
                break;
            }
        }
        if !commands.is_empty() {
            next.take(Committed { result: committer.commit(commands, health.is_failing()), answers });
        }
    }
    health.note(committer.idle().as_ref().map(drop));
}

/// Syncs what has been committed, all of it at once, and answers it.
fn sync_and_answer<O: Send + 'static>(mut sync: Syncer, committed: &Receiver<Committed<O>>, answering: &Answering) {
    let _on_panic = EndNote(Arc::clone(&answering.health));
    while let Ok(first) = committed.recv() {
        let all: Vec<_> = std::iter::once(first).chain(committed.try_iter()).collect();
        let synced = sync();
        for Committed { result, answers } in all {
            let result = result.and_then(|outcomes| synced.clone().map(|()| outcomes));
            answering.answer(Committed { result, answers });
        }
    }
}

/// How whoever waits is told.
struct Answering {
    health: Arc<Health>,
    runtime: Option<Handle>,
}

impl Answering {
    fn answer<O: Send + 'static>(&self, committed: Committed<O>) {
        self.health.note(committed.result.as_ref().map(drop));
        match &self.runtime {
            // One wake for all of them.
            Some(runtime) if committed.answers.len() > 1 => drop(runtime.spawn(async { answer_all(committed) })),
            _ => answer_all(committed),
        }
    }
}

/// A client that has gone away does not read its answer; its command is done all the same.
fn answer_all<O>(Committed { result, answers }: Committed<O>) {
    match result {
        Ok(outcomes) => {
            debug_assert_eq!(outcomes.len(), answers.len(), "one outcome a command");
            for (outcome, answer) in outcomes.into_iter().zip(answers) {
                let _ = answer.send(Ok(outcome));
            }
        }
        Err(error) => {
            for answer in answers {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Fails a batch that holds a 13, and refuses odd numbers.
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
            self.hold.recv().expect("the test lets go");
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
        let outcomes: Vec<_> =
            more.into_iter().map(|a| a.blocking_recv().expect("answered").expect("committed")).collect();
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

    /// Doubles numbers, and has them synced by the test: how many there are is told, and how it went is asked.
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
            how.recv().expect("the test lets go")
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
        // What was failing is asked again without a request, until all is well.
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
        writer.join().expect_err("the test has let go of its committer");
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
}
