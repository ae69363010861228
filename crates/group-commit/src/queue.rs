//! The queue of commands in front of the writer thread, and the rule for when a transaction begins.
//!
//! Without a sync in flight, the writer takes what waits at once. During a sync, the next transaction cannot be answered
//! before the sync ends, so the writer waits until the queue has as many commands as the sync covers, or until it ends: a transaction
//! for each command that arrives would cost a sync each.

use std::collections::VecDeque;
use std::mem;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::StoreError;

/// The most commands in a transaction. A larger batch does not make a command cheaper, and its first command waits longer.
const MAX_BATCH: usize = 1_024;

/// The most commands that wait. One more is refused at once, instead of waiting longer than its client does.
pub(super) const MAX_QUEUED: usize = 8_192;

/// The most transactions that are committed and not synced: one in the sync, and one that waits for the next sync.
pub(super) const MAX_UNSYNCED: usize = 2;

/// A bounded queue of commands with one consumer.
pub(super) struct Queue<W> {
    state: Mutex<State<W>>,
    /// Wakes the consumer.
    ready: Condvar,
}

struct State<W> {
    waiting: Vec<W>,
    /// The number of commands in each transaction that is committed and not synced.
    unsynced: VecDeque<usize>,
    is_stopping: bool,
}

/// What the consumer does next.
pub(super) enum NextBatch<W> {
    /// Commit these commands, which are in the order of their arrival.
    Commands(Vec<W>),
    /// No command has arrived for a while.
    Idle,
    /// The queue is empty and takes no more commands.
    Stopped,
}

impl<W> Queue<W> {
    pub(super) fn new() -> Self {
        let state = State { waiting: Vec::new(), unsynced: VecDeque::new(), is_stopping: false };
        Queue { state: Mutex::new(state), ready: Condvar::new() }
    }

    /// Adds a command, unless the queue is full or stopping.
    pub(super) fn push(&self, command: W) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        match state.waiting.len() {
            _ if state.is_stopping => return Err(StoreError::Stopping),
            MAX_QUEUED.. => return Err(StoreError::Overloaded),
            _ => state.waiting.push(command),
        }
        let is_awaited = state.waiting.len() == state.enough();
        drop(state); // the consumer needs the lock when it wakes
        if is_awaited {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Waits for the commands of the next transaction, for `idle` at most if there is no sync in flight.
    pub(super) fn take(&self, idle: Duration) -> NextBatch<W> {
        let until = Instant::now() + idle;
        let mut state = self.state.lock();
        while state.waiting.len() < state.enough() && !state.is_stopping {
            let has_timed_out = self.ready.wait_until(&mut state, until).timed_out();
            if has_timed_out && state.unsynced.is_empty() {
                break;
            }
            if has_timed_out {
                self.ready.wait(&mut state);
            }
        }
        let count = state.waiting.len().min(MAX_BATCH);
        match count {
            0 if state.is_stopping => NextBatch::Stopped,
            0 => NextBatch::Idle,
            _ => {
                let rest = state.waiting.split_off(count);
                NextBatch::Commands(mem::replace(&mut state.waiting, rest))
            }
        }
    }

    /// Records that a transaction with this many commands is committed and waits for its sync.
    pub(super) fn record_committed(&self, commands: usize) {
        self.state.lock().unsynced.push_back(commands);
    }

    /// Records that the oldest unsynced transaction is synced, or that its sync failed.
    pub(super) fn record_synced(&self) {
        self.state.lock().unsynced.pop_front();
        self.ready.notify_one();
    }

    /// Refuses further commands. The consumer still takes those that wait.
    pub(super) fn stop(&self) {
        self.state.lock().is_stopping = true;
        self.ready.notify_one();
    }

    /// Refuses further commands and drops those that wait.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.is_stopping = true;
        state.waiting.clear();
        self.ready.notify_one();
    }
}

impl<W> State<W> {
    /// The number of waiting commands at which the next transaction begins.
    fn enough(&self) -> usize {
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
    const LONG: Duration = Duration::from_secs(20);

    fn push(queue: &Queue<u32>, numbers: std::ops::Range<u32>) {
        numbers.for_each(|number| queue.push(number).expect("room"));
    }

    /// The next batch, which must not need waiting.
    fn taken(queue: &Queue<u32>) -> Vec<u32> {
        match queue.take(NOW) {
            NextBatch::Commands(batch) => batch,
            NextBatch::Idle | NextBatch::Stopped => Vec::new(),
        }
    }

    #[test]
    fn beside_a_sync_as_many_are_waited_for_as_it_has() {
        let queue = Queue::new();
        push(&queue, 0..1);
        assert_eq!(taken(&queue), [0], "a lone one is taken at once");
        push(&queue, 0..3);
        queue.record_committed(3);
        assert_eq!(queue.state.lock().enough(), 3);
        assert_eq!(taken(&queue), [0, 1, 2]);
        push(&queue, 0..2);
        assert_eq!(queue.state.lock().enough(), 3, "not yet");
        queue.record_synced();
        assert_eq!(taken(&queue), [0, 1], "there is no sync any more");
        queue.record_committed(2);
        queue.record_committed(1);
        assert_eq!(queue.state.lock().enough(), usize::MAX, "the next one waits for one of two");
        queue.record_synced();
        assert_eq!(queue.state.lock().enough(), 1);
    }

    /// Takes in a thread that would wait for longer than the test, while `meanwhile` runs.
    fn taken_while(queue: &Queue<u32>, meanwhile: impl FnOnce()) -> Vec<u32> {
        std::thread::scope(|scope| {
            let taking = scope.spawn(|| (queue.take(LONG), Instant::now()));
            meanwhile();
            let from = Instant::now();
            match taking.join().expect("no panic") {
                (NextBatch::Commands(batch), at) if at.saturating_duration_since(from) < LONG / 2 => batch,
                _ => panic!("it was not woken"),
            }
        })
    }

    #[test]
    fn the_command_that_makes_a_batch_wakes_the_consumer() {
        let queue = Queue::new();
        assert_eq!(taken_while(&queue, || push(&queue, 0..1)), [0]);
        queue.record_committed(5);
        assert_eq!(taken_while(&queue, || push(&queue, 0..5)).len(), 5, "the sync is not over");
    }

    #[test]
    fn the_end_of_a_sync_wakes_the_consumer() {
        let queue = Queue::new();
        queue.record_committed(5);
        push(&queue, 0..2);
        assert_eq!(taken_while(&queue, || queue.record_synced()), [0, 1]);
    }

    #[test]
    fn what_came_before_the_end_is_taken_in_batches_that_are_not_too_large() {
        let queue = Queue::new();
        let count = MAX_BATCH as u32 + 1;
        push(&queue, 0..count);
        queue.stop();
        assert!(matches!(queue.push(0), Err(StoreError::Stopping)));
        assert_eq!(taken(&queue).len(), MAX_BATCH);
        assert_eq!(taken(&queue), [count - 1]);
        assert!(matches!(queue.take(NOW), NextBatch::Stopped));
    }

    #[test]
    fn more_than_may_wait_is_refused() {
        let queue = Queue::new();
        push(&queue, 0..MAX_QUEUED as u32);
        assert!(matches!(queue.push(0), Err(StoreError::Overloaded)));
    }
}
