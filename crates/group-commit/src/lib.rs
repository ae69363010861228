//! Group commit: one transaction and one sync for as many requests as have queued up while the last one was on its way.
//!
//! A lone request is committed at once, and the more wait the larger the batch (`queue.rs`). It is what makes a
//! durable write nearly as cheap as one in memory. One thread owns the connection and all
//! that must be decided in order; an answer is given after the commit is durable (ARCHITECTURE.md A2).
//!
//! ```text
//! submit ──queue──▶ writer: decide, commit ──▶ sync: make durable, answer
//! ```
//!
//! Where a committer's commits are not durable by themselves, another thread syncs them while the writer is at the next one.

mod health;
mod queue;
mod store_error;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub use self::health::Health;
use self::queue::{MAX_UNSYNCED, Queue, Taken};
pub use self::store_error::{StoreError, postgres_message};

/// How long without a command until [`Committer::idle`] is called.
const IDLE: Duration = Duration::from_millis(250);

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

type Answer<O> = oneshot::Sender<Result<O, StoreError>>;

/// What a commit came to, and who waits for that.
struct Committed<O> {
    result: Result<Vec<O>, StoreError>,
    answers: Vec<Answer<O>>,
}

/// The handlers' end of the queue to one writer thread, whichever database that writes to: commands `C` come to outcomes `O`.
pub struct GroupCommit<C, O> {
    queue: Arc<Queue<(C, Answer<O>)>>,
    health: Arc<Health>,
}

/// Ends the queue with the thread that has this: nobody waits for one that is gone. Says so if that is by a panic.
struct End<C, O> {
    queue: Arc<Queue<(C, Answer<O>)>>,
    health: Arc<Health>,
}

impl<C, O> Drop for End<C, O> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.health.note(Err::<(), _>(&StoreError::Unavailable("its writer has ended".to_owned())));
        }
        self.queue.close();
    }
}

impl<C, O> Clone for GroupCommit<C, O> {
    fn clone(&self) -> Self {
        GroupCommit { queue: Arc::clone(&self.queue), health: Arc::clone(&self.health) }
    }
}

impl<C: Send + 'static, O: Send + 'static> GroupCommit<C, O> {
    /// Starts the writer thread, called `name`. It ends after [`GroupCommit::stop`]; join the handle to know that
    /// everything accepted before is durable.
    pub fn start(
        name: &str,
        committer: impl Committer<Command = C, Outcome = O>,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let queue = Arc::new(Queue::new());
        let health = Arc::new(Health::new("a transaction failed", "the database takes transactions again"));
        let answering = Answering { health: Arc::clone(&health), runtime: Handle::try_current().ok() };
        let (next, sync_thread) = match committer.sync() {
            None => (Next::Answer(answering), None),
            Some(sync) => {
                let (unsynced, committed) = sync_channel(MAX_UNSYNCED);
                let thread = Builder::new().name(format!("{name}-sync"));
                let end = End { queue: Arc::clone(&queue), health: Arc::clone(&health) };
                (Next::Sync(unsynced), Some(thread.spawn(move || sync_and_answer(sync, &committed, &answering, &end))?))
            }
        };
        let end = End { queue: Arc::clone(&queue), health: Arc::clone(&health) };
        let writer = Builder::new().name(name.to_owned()).spawn(move || {
            run(committer, &end.queue, &end.health, next);
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
        self.health.failure()
    }

    fn enqueue(&self, command: C) -> Result<oneshot::Receiver<Result<O, StoreError>>, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.queue.put((command, answer))?;
        Ok(answered)
    }

    /// Tells the writer to finish what was accepted so far and end.
    pub fn stop(&self) {
        self.queue.stop();
    }
}

/// Where the writer takes what it has committed.
enum Next<O> {
    Answer(Answering),
    Sync(SyncSender<Committed<O>>),
}

fn run<C: Committer>(
    mut committer: C,
    queue: &Queue<(C::Command, Answer<C::Outcome>)>,
    health: &Health,
    next: Next<C::Outcome>,
) {
    loop {
        let (commands, answers) = match queue.take(IDLE) {
            Taken::Batch(batch) => batch.into_iter().unzip(),
            // An empty transaction tells whether that is over: no request need be spent on it.
            Taken::Nothing if health.failure().is_some() => (Vec::new(), Vec::new()),
            Taken::Nothing => {
                health.note(committer.idle().as_ref());
                continue;
            }
            Taken::Stopped => break,
        };
        let committed = Committed { result: committer.commit(commands, health.failure().is_some()), answers };
        match &next {
            Next::Answer(answering) => answering.answer(committed),
            Next::Sync(unsynced) => {
                queue.committed(committed.answers.len());
                // Where nobody takes it, those who wait are told by the end of their channels.
                let _ = unsynced.send(committed);
            }
        }
    }
    health.note(committer.idle().as_ref());
}

/// Syncs what has been committed, and answers it.
fn sync_and_answer<C, O: Send + 'static>(
    mut sync: Syncer,
    committed: &Receiver<Committed<O>>,
    answering: &Answering,
    end: &End<C, O>,
) {
    while let Ok(Committed { result, answers }) = committed.recv() {
        let synced = sync();
        end.queue.synced();
        answering.answer(Committed { result: result.and_then(|outcomes| synced.map(|()| outcomes)), answers });
    }
}

/// How whoever waits is told.
struct Answering {
    health: Arc<Health>,
    runtime: Option<Handle>,
}

impl Answering {
    fn answer<O: Send + 'static>(&self, committed: Committed<O>) {
        self.health.note(committed.result.as_ref());
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
