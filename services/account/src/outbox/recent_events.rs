//! The latest committed events, handed from the writer to the relay in memory (docs/decisions/0005).
//!
//! The relay reads the outbox only where memory does not have the next event: after a restart, while the event log was away, and
//! for the commits of other instances.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::decide::OutboxEvent;

/// The most events that are kept. A relay that is further behind reads the outbox.
const MAX_RECENT: usize = 10_000;

/// The events of one transaction.
pub(crate) struct EventBatch {
    /// The last sequence in the outbox before the transaction.
    pub(crate) previous_sequence: u64,
    /// The sequence of the last event.
    pub(crate) last_sequence: u64,
    pub(crate) events: Vec<OutboxEvent>,
}

/// The last batches that this instance committed, in order. The writer adds them, and the relay takes them.
#[derive(Clone, Default)]
pub(crate) struct RecentEvents(Arc<Mutex<Recent>>);

#[derive(Default)]
struct Recent {
    batches: VecDeque<EventBatch>,
    events: usize,
}

impl RecentEvents {
    /// Adds a batch. Drops the earlier ones if there would be more than [`MAX_RECENT`] events.
    pub(crate) fn add(&self, batch: EventBatch) {
        let mut recent = self.0.lock();
        if recent.events + batch.events.len() > MAX_RECENT {
            *recent = Recent::default();
        }
        recent.events += batch.events.len();
        recent.batches.push_back(batch);
    }

    /// Takes the batches after the position `after` and up to and including `up_to`, until they have `limit` events together.
    /// Returns none if the batch after `after` is not in memory.
    pub(crate) fn take(&self, after: u64, up_to: u64, limit: usize) -> Vec<EventBatch> {
        let mut recent = self.0.lock();
        let (mut taken, mut events) = (Vec::new(), 0);
        while events < limit
            && let Some(batch) = recent.batches.front()
        {
            let is_known = batch.last_sequence <= after;
            let reached = taken.last().map_or(after, |batch: &EventBatch| batch.last_sequence);
            // After a gap, or a read that ended inside a batch, the outbox has what follows.
            if !is_known && batch.previous_sequence != reached || batch.last_sequence > up_to {
                break;
            }
            let Some(batch) = recent.batches.pop_front() else { break };
            recent.events -= batch.events.len();
            if !is_known {
                events += batch.events.len();
                taken.push(batch);
            }
        }
        taken
    }

    /// Drops all batches: the outbox has them.
    pub(crate) fn clear(&self) {
        *self.0.lock() = Recent::default();
    }

    /// Whether no batch is kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().batches.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use account_events::{AccountId, AccountStatus, TraceParent};
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;

    /// `count` events, the last of which has the sequence `last_sequence`.
    fn batch(previous_sequence: u64, last_sequence: u64, count: usize) -> EventBatch {
        let trace = TraceParent { trace_id: 1, parent_id: 1, flags: 0 };
        let event = |id| {
            OutboxEvent::new(AccountId(Uuid::from_u128(id)), 1, AccountStatus::Active, Timestamp::UNIX_EPOCH, trace)
        };
        EventBatch { previous_sequence, last_sequence, events: (0..count as u128).map(event).collect() }
    }

    fn lasts(batches: &[EventBatch]) -> Vec<u64> {
        batches.iter().map(|batch| batch.last_sequence).collect()
    }

    #[test]
    fn the_relay_takes_what_follows_on_its_position_and_nothing_behind_a_gap() {
        let recent = RecentEvents::default();
        recent.add(batch(10, 13, 3));
        recent.add(batch(13, 20, 2));
        recent.add(batch(20, 21, 1));
        assert!(recent.take(9, 100, 10).is_empty(), "one before the first is not there");
        assert_eq!(lasts(&recent.take(10, 100, 3)), [13], "no more than asked for");
        assert_eq!(lasts(&recent.take(13, 20, 10)), [20], "nothing beyond the end that was given");
        assert_eq!(lasts(&recent.take(20, 100, 10)), [21]);
        assert!(recent.take(21, 100, 10).is_empty());
        recent.add(batch(21, 30, 1));
        recent.add(batch(30, 40, 1));
        assert_eq!(lasts(&recent.take(30, 100, 10)), [40], "what the relay has read from the database already goes");
        recent.add(batch(40, 50, 1));
        recent.add(batch(55, 60, 1));
        assert_eq!(lasts(&recent.take(40, 100, 10)), [50], "another instance has committed between the two");
        assert!(recent.take(50, 100, 10).is_empty() && !recent.is_empty());
        assert_eq!(lasts(&recent.take(55, 100, 10)), [60]);
        assert!(recent.is_empty());
        recent.add(batch(60, 70, 10));
        recent.add(batch(70, 80, 1));
        assert!(
            recent.take(65, 100, 10).is_empty(),
            "the database was read to the middle of a batch, and has the rest"
        );
        assert_eq!(lasts(&recent.take(70, 100, 10)), [80]);
    }

    #[test]
    fn a_relay_that_is_far_behind_is_not_waited_for() {
        let recent = RecentEvents::default();
        let mut last = 0;
        for _ in 0..=MAX_RECENT / 1_000 {
            recent.add(batch(last, last + 1_000, 1_000));
            last += 1_000;
        }
        assert!(recent.take(0, u64::MAX, 10).is_empty(), "the database has them");
        assert_eq!(lasts(&recent.take(last - 1_000, u64::MAX, 10)), [last]);
    }
}
