//! Group commit: one transaction and one sync for as many requests as have queued up while the last one was on its way.
//!
//! There is no timer: a lone request is committed at once, and the more wait the larger the batch. It is what makes a
//! durable write nearly as cheap as one in memory. One thread owns the connection and all
//! that must be decided in order; an answer is given after the commit is durable (ARCHITECTURE.md A2).

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

/// What one writer thread does with the commands that queued up.
pub trait Committer: Send + 'static {
    /// A request, reduced to what the transaction must decide.
    type Command: Send + 'static;
    /// What it came to: done, or the rule that forbids it.
    type Outcome: Send + 'static;

    /// Applies `commands`, possibly none, in order in one transaction. When it returns `Ok`, all is durable, and there is one
    /// outcome a command, in order; a command that breaks a rule says so in its outcome and leaves its neighbours alone.
    /// When it returns `Err`, nothing of the batch is written; unless a server was lost during its commit, then all of it
    /// may be.
    ///
    /// A batch that changes nothing need not be written, unless `is_failing`: the last transaction failed, and this one is to
    /// tell whether that is over.
    fn commit(&mut self, commands: Vec<Self::Command>, is_failing: bool) -> Result<Vec<Self::Outcome>, StoreError>;

    /// Called when no command has come for a while, and before the end: the place for work that can wait for a quiet
    /// moment, which a busy committer takes along in its next transaction.
    fn idle(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

enum Message<C, O> {
    Command(C, oneshot::Sender<Result<O, StoreError>>),
    Stop,
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
        let noted = Arc::clone(&health);
        let runtime = Handle::try_current().ok();
        let writer = Builder::new().name(name.to_owned()).spawn(move || {
            let _on_panic = EndNote(Arc::clone(&noted));
            run(committer, &commands, &noted, runtime.as_ref());
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

fn run<C: Committer>(
    mut committer: C,
    queue: &Receiver<Message<C::Command, C::Outcome>>,
    health: &Health,
    runtime: Option<&Handle>,
) {
    let mut stopping = false;
    while !stopping {
        let first = match queue.recv_timeout(IDLE) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => {
                // After a failure an empty transaction tells whether it is over: no request need be spent on that.
                let result = match health.is_failing() {
                    true => committer.commit(Vec::new(), true).map(drop),
                    false => committer.idle(),
                };
                health.note(result.as_ref().map(drop));
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
            let result = committer.commit(commands, health.is_failing());
            health.note(result.as_ref().map(drop));
            match runtime {
                // One wake for all of them.
                Some(runtime) if answers.len() > 1 => drop(runtime.spawn(async { answer_all(result, answers) })),
                _ => answer_all(result, answers),
            }
        }
    }
    health.note(committer.idle().as_ref().map(drop));
}

/// A client that has gone away does not read its answer; its command is done all the same.
fn answer_all<O>(result: Result<Vec<O>, StoreError>, answers: Vec<oneshot::Sender<Result<O, StoreError>>>) {
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
