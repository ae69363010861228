//! What was committed last, on its way to the relay in memory: it reads the outbox only where memory does not have what comes
//! next (after a restart, when the event log was away, or what another instance has committed).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::decide::OutboxEvent;

/// Events that are kept in memory for the relay, at most. A relay that is further behind reads the outbox.
const MAX_RECENT: usize = 10_000;

/// What one transaction has committed.
pub(crate) struct EventBatch {
    /// The last sequence in the outbox before it.
    pub(crate) behind: u64,
    /// The sequence of its last event.
    pub(crate) last: u64,
    pub(crate) events: Vec<OutboxEvent>,
}

/// The last batches that this instance has committed, in order. The writer adds them, the relay takes them. Reading them back
/// from SQLite's file instead takes a tenth of all that an account costs.
#[derive(Clone, Default)]
pub(crate) struct RecentEvents(Arc<Mutex<Recent>>);

#[derive(Default)]
struct Recent {
    batches: VecDeque<EventBatch>,
    events: usize,
}

impl RecentEvents {
    /// Keeps what was committed, if the relay is not too far behind for that.
    pub(crate) fn add(&self, batch: EventBatch) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.events + batch.events.len() > MAX_RECENT {
            *recent = Recent::default();
        }
        recent.events += batch.events.len();
        recent.batches.push_back(batch);
    }

    /// The batches that follow on `after`, up to and including `up_to`, until they have `limit` events together; none if
    /// memory does not have what comes next.
    pub(crate) fn take(&self, after: u64, up_to: u64, limit: usize) -> Vec<EventBatch> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, mut events) = (Vec::new(), 0);
        while events < limit
            && let Some(batch) = recent.batches.front()
        {
            let is_known = batch.last <= after;
            let reached = taken.last().map_or(after, |batch: &EventBatch| batch.last);
            // A read that ended inside a batch leaves the rest of it to the next one.
            if !is_known && batch.behind != reached || batch.last > up_to {
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

    /// Forgets them: the database has them all.
    pub(crate) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Recent::default();
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).batches.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use account_events::{AccountId, AccountStatus, TraceParent};
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;

    /// So many events, the last of which has the sequence `last`.
    fn batch(behind: u64, last: u64, count: usize) -> EventBatch {
        let trace = TraceParent { trace_id: 1, parent_id: 1, flags: 0 };
        let event = |id| {
            OutboxEvent::new(AccountId(Uuid::from_u128(id)), 1, AccountStatus::Active, Timestamp::UNIX_EPOCH, trace)
        };
        EventBatch { behind, last, events: (0..count as u128).map(event).collect() }
    }

    fn lasts(batches: &[EventBatch]) -> Vec<u64> {
        batches.iter().map(|batch| batch.last).collect()
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
