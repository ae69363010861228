//! The commands that wait for the writer, and when it is to take them.
//!
//! A writer whose commits another thread syncs could begin the next transaction as soon as the first command is there, and its
//! transactions would be many and small. So it begins beside a sync when as many wait as that sync is for, and else
//! when the sync has ended. No timer is in it: a lone command is taken at once, and at full load transactions are as large as
//! without the other thread, while nobody is idle. Nobody is woken before.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::StoreError;

/// Commands in one transaction, at most: beyond this a larger batch no longer makes a command cheaper, and the first
/// one in it waits longer.
const MAX_BATCH: usize = 1_024;

/// Commands that wait, at most. One more is refused at once instead of waiting longer than its client will.
pub(super) const MAX_QUEUED: usize = 8_192;

/// Transactions that are committed and not synced, at most: one that is being synced, and one that waits for that.
pub(super) const MAX_UNSYNCED: usize = 2;

/// A queue of `W`, with one thread that takes.
pub(super) struct Queue<W> {
    state: Mutex<State<W>>,
    /// Signalled when there is something for the one that takes.
    ready: Condvar,
}

struct State<W> {
    waiting: VecDeque<W>,
    /// How many commands each transaction has that is committed and not synced.
    unsynced: VecDeque<usize>,
    is_stopping: bool,
}

/// What there is to do for the one that takes.
pub(super) enum Taken<W> {
    /// Commands for the next transaction, in the order they came.
    Batch(Vec<W>),
    /// Nothing for a while.
    Nothing,
    /// The end: all has been taken, and no more will come.
    Stopped,
}

impl<W> Queue<W> {
    pub(super) fn new() -> Self {
        let state = State { waiting: VecDeque::new(), unsynced: VecDeque::new(), is_stopping: false };
        Queue { state: Mutex::new(state), ready: Condvar::new() }
    }

    /// Adds one, unless as many wait as may, or the end has been told.
    pub(super) fn put(&self, command: W) -> Result<(), StoreError> {
        let mut state = self.state();
        match state.waiting.len() {
            _ if state.is_stopping => return Err(StoreError::Stopping),
            MAX_QUEUED.. => return Err(StoreError::Overloaded),
            _ => state.waiting.push_back(command),
        }
        // At each further one it is awake, or still busy.
        if state.waiting.len() == state.needed() {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Takes what the next transaction is to have; waits for it, up to `idle` where nothing comes.
    pub(super) fn take(&self, idle: Duration) -> Taken<W> {
        let until = Instant::now() + idle;
        let mut state = self.state();
        while state.waiting.len() < state.needed() && !state.is_stopping {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() && state.waiting.is_empty() && state.unsynced.is_empty() {
                return Taken::Nothing;
            }
            // While there is a sync its end is a signal.
            let wait = if state.unsynced.is_empty() { left } else { idle };
            state = self.ready.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        let count = state.waiting.len().min(MAX_BATCH);
        match count {
            0 => Taken::Stopped,
            _ => Taken::Batch(state.waiting.drain(..count).collect()),
        }
    }

    /// Notes that a transaction with so many commands is committed, and goes to be synced.
    pub(super) fn committed(&self, commands: usize) {
        self.state().unsynced.push_back(commands);
    }

    /// Notes that the first of those is synced, or never will be.
    pub(super) fn synced(&self) {
        let mut state = self.state();
        state.unsynced.pop_front();
        if state.waiting.len() >= state.needed() {
            self.ready.notify_one();
        }
    }

    /// Tells the end: what has been added is taken, and no more is.
    pub(super) fn stop(&self) {
        self.state().is_stopping = true;
        self.ready.notify_one();
    }

    /// The end at once: what waits is dropped, and nothing more is added.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.is_stopping = true;
        state.waiting.clear();
        self.ready.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W> State<W> {
    /// How many must wait for the next transaction to begin.
    fn needed(&self) -> usize {
        match self.unsynced.front() {
            None => 1,
            Some(_) if self.unsynced.len() >= MAX_UNSYNCED => usize::MAX,
            Some(commands) => (*commands).clamp(1, MAX_BATCH),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn put(queue: &Queue<u32>, numbers: std::ops::Range<u32>) {
        numbers.for_each(|number| queue.put(number).expect("room"));
    }

    /// What is there to be taken, if anything. With a sync under way that would be waited for.
    fn taken(queue: &Queue<u32>) -> Vec<u32> {
        match queue.take(NOW) {
            Taken::Batch(batch) => batch,
            Taken::Nothing | Taken::Stopped => Vec::new(),
        }
    }

    #[test]
    fn beside_a_sync_as_many_are_waited_for_as_it_has() {
        let queue = Queue::new();
        put(&queue, 0..1);
        assert_eq!(taken(&queue), [0], "a lone one is taken at once");
        put(&queue, 0..3);
        queue.committed(3);
        assert_eq!(queue.state().needed(), 3);
        assert_eq!(taken(&queue), [0, 1, 2]);
        put(&queue, 0..2);
        assert_eq!(queue.state().needed(), 3, "not yet");
        queue.synced();
        assert_eq!(taken(&queue), [0, 1], "there is no sync any more");
        queue.committed(2);
        queue.committed(1);
        assert_eq!(queue.state().needed(), usize::MAX, "the next one waits for one of two");
        queue.synced();
        assert_eq!(queue.state().needed(), 1);
    }

    #[test]
    fn the_end_of_a_sync_wakes_the_one_that_takes() {
        let queue = Queue::new();
        queue.committed(5);
        put(&queue, 0..2);
        std::thread::scope(|scope| {
            let taking = scope.spawn(|| taken(&queue));
            queue.synced();
            assert_eq!(taking.join().expect("no panic"), [0, 1]);
        });
    }

    #[test]
    fn what_came_before_the_end_is_taken_in_batches_that_are_not_too_large() {
        let queue = Queue::new();
        let count = MAX_BATCH as u32 + 1;
        put(&queue, 0..count);
        queue.stop();
        assert!(matches!(queue.put(0), Err(StoreError::Stopping)));
        assert_eq!(taken(&queue).len(), MAX_BATCH);
        assert_eq!(taken(&queue), [count - 1]);
        assert!(matches!(queue.take(NOW), Taken::Stopped));
    }

    #[test]
    fn more_than_may_wait_is_refused() {
        let queue = Queue::new();
        put(&queue, 0..MAX_QUEUED as u32);
        assert!(matches!(queue.put(0), Err(StoreError::Overloaded)));
    }
}
