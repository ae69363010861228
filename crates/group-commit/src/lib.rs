//! Group commit: one transaction and one fsync for all requests that queued up during the previous transaction.
//!
//! One writer thread owns the connection and everything that must be decided in order. A request is answered after its
//! commit is durable (ARCHITECTURE.md A2).
//!
//! ```text
//! submit ──queue──▶ writer: decide, commit ──▶ sync: make durable, answer
//! ```
//!
//! If a database's commits are not durable by themselves, a second thread syncs them while the writer commits the next
//! transaction.

mod expiry;
mod health;
mod isolation;
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

pub use self::expiry::KeyExpiry;
pub use self::health::Health;
use self::queue::{MAX_UNSYNCED, NextBatch, Queue};
pub use self::store_error::{StoreError, postgres_message};

/// How long the queue is empty before [`Committer::idle`] is called.
const IDLE: Duration = Duration::from_millis(250);

/// Makes everything durable that was committed before the call.
pub type Syncer = Box<dyn FnMut() -> Result<(), StoreError> + Send>;

/// The database behind a [`GroupCommit`]. All methods run on its writer thread.
pub trait Committer: Send + 'static {
    /// A request, reduced to what the transaction needs to decide it.
    type Command: Clone + Send + 'static;
    /// The result of a command: done, or the domain rule that forbids it.
    type Outcome: Send + 'static;

    /// Applies `commands` in order in one transaction, and returns one outcome for each, in the same order. There may be no
    /// commands. After `Ok`, the transaction is committed, and durable unless there is a [`sync`](Committer::sync). After
    /// `Err`, nothing is written, except that a connection lost during COMMIT leaves that unknown.
    ///
    /// A command that breaks a rule does not affect its neighbours. Commands that the database rejects, or that need a locked
    /// row, are isolated: `commit` is called again with parts of the batch. A call without commands tests whether anything can
    /// be written now. A batch without changes need not be written, unless `is_failing`: then it is such a test, too.
    fn commit(&mut self, commands: Vec<Self::Command>, is_failing: bool) -> Result<Vec<Self::Outcome>, StoreError>;

    /// Returns what makes commits durable on a thread of its own, or `None` if commits are durable when they return.
    fn sync(&self) -> Option<Syncer> {
        None
    }

    /// Does deferred work. Called when no command has arrived for [a while](IDLE), and before the thread ends.
    fn idle(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

type Answer<O> = oneshot::Sender<Result<O, StoreError>>;

/// A result for each command of a batch.
type Results<O> = Vec<Result<O, StoreError>>;

/// The results of a batch, the requests that wait for them, and whether the database works.
struct Committed<O> {
    results: Results<O>,
    answers: Vec<Answer<O>>,
    health: Result<(), StoreError>,
}

/// A handle to one writer thread, which turns commands `C` into outcomes `O`. Clones share the thread.
pub struct GroupCommit<C, O> {
    queue: Arc<Queue<(C, Answer<O>)>>,
    /// Whether transactions succeed.
    health: Arc<Health>,
    /// Whether all commands of a transaction succeed.
    commands_health: Arc<Health>,
}

impl<C, O> Clone for GroupCommit<C, O> {
    fn clone(&self) -> Self {
        let (health, commands_health) = (Arc::clone(&self.health), Arc::clone(&self.commands_health));
        GroupCommit { queue: Arc::clone(&self.queue), health, commands_health }
    }
}

/// Closes the queue when the thread that owns this value ends, so that no request waits for it. Reports a panic as a
/// failure.
struct CloseOnExit<C, O>(GroupCommit<C, O>);

impl<C, O> Drop for CloseOnExit<C, O> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.health.record(Err::<(), _>(&StoreError::Unavailable("its writer has ended".to_owned())));
        }
        self.0.queue.close();
    }
}

impl<C: Clone + Send + 'static, O: Send + 'static> GroupCommit<C, O> {
    /// Starts the writer thread under `name`. The thread ends after [`GroupCommit::stop`], and joining it waits until all
    /// accepted commands are durable. Called within a Tokio runtime, answers are sent on that.
    pub fn start(
        name: &str,
        committer: impl Committer<Command = C, Outcome = O>,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let health = Arc::new(Health::new("a transaction failed", "the database takes transactions again"));
        let commands_health = Health::new(
            "the database refuses single commands; the rest of their batch is not affected",
            "the database accepts all commands again",
        );
        let group_commit =
            GroupCommit { queue: Arc::new(Queue::new()), health, commands_health: Arc::new(commands_health) };
        let runtime = Handle::try_current().ok();
        let (unsynced, sync_thread) = match committer.sync() {
            None => (None, None),
            Some(sync) => {
                let (unsynced, committed) = sync_channel(MAX_UNSYNCED);
                let (shared, runtime) = (CloseOnExit(group_commit.clone()), runtime.clone());
                let thread = Builder::new().name(format!("{name}-sync"));
                let thread = thread.spawn(move || sync_and_answer(sync, &committed, &shared.0, runtime.as_ref()))?;
                (Some(unsynced), Some(thread))
            }
        };
        let shared = CloseOnExit(group_commit.clone());
        let writer = Builder::new().name(name.to_owned()).spawn(move || {
            write(committer, &shared.0, unsynced, runtime.as_ref());
            if sync_thread.is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("the sync thread panicked");
            }
        })?;
        Ok((group_commit, writer))
    }

    /// Sends `command` to the writer and waits until it is durable.
    pub async fn submit(&self, command: C) -> Result<O, StoreError> {
        self.enqueue(command)?.await.unwrap_or(Err(StoreError::Stopping))
    }

    /// Like [`GroupCommit::submit`], for a thread that may block.
    pub fn submit_blocking(&self, command: C) -> Result<O, StoreError> {
        self.enqueue(command)?.blocking_recv().unwrap_or(Err(StoreError::Stopping))
    }

    /// Why single commands have failed recently, if so.
    pub fn warning(&self) -> Option<String> {
        self.commands_health.failure().or_else(|| self.commands_health.warning())
    }

    /// The error of the last transaction, if it failed.
    pub fn failure(&self) -> Option<String> {
        self.health.failure()
    }

    fn enqueue(&self, command: C) -> Result<oneshot::Receiver<Result<O, StoreError>>, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.queue.push((command, answer))?;
        Ok(answered)
    }

    /// Refuses further commands, and ends the writer thread once the accepted ones are durable.
    pub fn stop(&self) {
        self.queue.stop();
    }
}

/// The writer thread. Hands each transaction to `unsynced` if there is one, and answers it otherwise.
fn write<C: Committer>(
    mut committer: C,
    shared: &GroupCommit<C::Command, C::Outcome>,
    unsynced: Option<SyncSender<Committed<C::Outcome>>>,
    runtime: Option<&Handle>,
) {
    let GroupCommit { queue, health, commands_health } = shared;
    loop {
        let (commands, answers): (Vec<_>, Vec<_>) = match queue.take(IDLE) {
            NextBatch::Commands(batch) => batch.into_iter().unzip(),
            // An empty transaction tests whether the failure is over, so that no request needs to.
            NextBatch::Idle if health.failure().is_some() => (Vec::new(), Vec::new()),
            NextBatch::Idle => {
                health.record(committer.idle().as_ref());
                commands_health.record(Ok::<(), &StoreError>(()));
                continue;
            }
            NextBatch::Stopped => break,
        };
        let (results, works) =
            isolation::commit(&mut committer, &commands, health.failure().is_some(), commands_health);
        let committed = Committed { results, answers, health: works };
        match &unsynced {
            None => answer(committed, health, runtime),
            Some(unsynced) => {
                queue.record_committed(committed.answers.len());
                // If the sync thread has ended, dropping the answers ends the requests.
                let _ = unsynced.send(committed);
            }
        }
    }
    health.record(committer.idle().as_ref());
}

/// The sync thread: syncs and answers each transaction.
fn sync_and_answer<C, O: Send + 'static>(
    mut sync: Syncer,
    committed: &Receiver<Committed<O>>,
    shared: &GroupCommit<C, O>,
    runtime: Option<&Handle>,
) {
    while let Ok(mut committed) = committed.recv() {
        let synced = sync();
        shared.queue.record_synced();
        if let Err(error) = synced {
            committed.results.fill_with(|| Err(error.clone()));
            committed.health = Err(error);
        }
        answer(committed, &shared.health, runtime);
    }
}

/// Answers the requests of a batch: several of them in one task of `runtime`, which wakes it once.
fn answer<O: Send + 'static>(
    Committed { results, answers, health: works }: Committed<O>,
    health: &Health,
    runtime: Option<&Handle>,
) {
    health.record(works.as_ref());
    debug_assert_eq!(results.len(), answers.len(), "one result a command");
    let is_several = answers.len() > 1;
    let send = move || {
        for (result, answer) in results.into_iter().zip(answers) {
            // The client may have disconnected: its command is done all the same.
            let _ = answer.send(result);
        }
    };
    match runtime {
        Some(runtime) if is_several => drop(runtime.spawn(async { send() })),
        _ => send(),
    }
}
