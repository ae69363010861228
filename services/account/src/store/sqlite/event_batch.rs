//! The events of one transaction, on their way to the relay: handed over in memory, and as a row of the outbox for when
//! memory does not have them (after a restart, or when the event log was away).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use account_events::{AccountId, AccountStatus};
use http_server::TraceParent;
use jiff::Timestamp;
use uuid::Uuid;

use crate::ledger::OutboxEvent;

/// Events that are kept in memory for the relay, at most. A relay that is further behind reads the outbox.
const MAX_RECENT: usize = 10_000;

/// What one transaction has committed.
pub(super) struct EventBatch {
    /// The last sequence in the outbox before it.
    pub(super) behind: u64,
    /// The sequence of its last event.
    pub(super) last: u64,
    pub(super) events: Vec<OutboxEvent>,
}

/// The last batches committed, in order and without a gap. The writer adds them, the relay takes them. Reading them back
/// from the file instead takes a tenth of all that an account costs.
#[derive(Clone, Default)]
pub(super) struct RecentEvents(Arc<Mutex<Recent>>);

#[derive(Default)]
struct Recent {
    batches: VecDeque<EventBatch>,
    events: usize,
}

impl RecentEvents {
    /// Keeps what was committed, if the relay is not too far behind for that.
    pub(super) fn add(&self, batch: EventBatch) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.events + batch.events.len() > MAX_RECENT {
            *recent = Recent::default();
        }
        recent.events += batch.events.len();
        recent.batches.push_back(batch);
    }

    /// The batches that follow on `after`, up to and including `up_to`, until they have `limit` events together; none if
    /// memory does not have what comes next.
    pub(super) fn take(&self, after: u64, up_to: u64, limit: usize) -> Vec<EventBatch> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, mut events) = (Vec::new(), 0);
        while events < limit
            && let Some(batch) = recent.batches.front()
        {
            let is_known = batch.last <= after;
            if !is_known && taken.is_empty() && batch.behind > after || batch.last > up_to {
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
}

/// An event takes so many bytes of a row of the outbox.
const EVENT_BYTES: usize = 46;

/// What a row of the outbox has of `events`, as the schema says.
pub(super) fn to_bytes(events: &[OutboxEvent]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(events.len() * EVENT_BYTES);
    for OutboxEvent { event, version, trace, .. } in events {
        bytes.extend_from_slice(event.account_id.0.as_bytes());
        bytes.extend_from_slice(&version.to_be_bytes());
        bytes.push(event.status as u8);
        bytes.extend_from_slice(&trace.trace_id.to_be_bytes());
        bytes.extend_from_slice(&trace.parent_id.to_be_bytes());
        bytes.push(trace.flags);
    }
    bytes
}

/// The events of a row; `None` if it is none that was ever written.
pub(super) fn from_bytes(bytes: &[u8], occurred_at: Timestamp) -> Option<Vec<OutboxEvent>> {
    let (events, rest) = bytes.as_chunks::<EVENT_BYTES>();
    rest.is_empty().then(|| events.iter().map(|event| from_event(event, occurred_at)).collect())?
}

fn from_event(mut bytes: &[u8], occurred_at: Timestamp) -> Option<OutboxEvent> {
    let account_id = AccountId(Uuid::from_bytes(take(&mut bytes)?));
    let version = u32::from_be_bytes(take(&mut bytes)?);
    let [status] = take(&mut bytes)?;
    let status = *AccountStatus::ALL.get(usize::from(status))?;
    let trace_id = u128::from_be_bytes(take(&mut bytes)?);
    let parent_id = u64::from_be_bytes(take(&mut bytes)?);
    let [flags] = take(&mut bytes)?;
    Some(OutboxEvent::new(account_id, version, status, occurred_at, TraceParent { trace_id, parent_id, flags }))
}

fn take<const COUNT: usize>(bytes: &mut &[u8]) -> Option<[u8; COUNT]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: TraceParent = TraceParent { trace_id: 7 << 100 | 1, parent_id: 9 << 50, flags: 1 };

    fn event(id: u128, version: u32, status: AccountStatus) -> OutboxEvent {
        let account_id = AccountId(Uuid::from_u128(id));
        OutboxEvent::new(account_id, version, status, Timestamp::UNIX_EPOCH, TRACE)
    }

    /// So many events, the last of which has the sequence `last`.
    fn batch(behind: u64, last: u64, count: usize) -> EventBatch {
        let events = (0..count as u128).map(|id| event(id, 1, AccountStatus::Active)).collect();
        EventBatch { behind, last, events }
    }

    fn lasts(batches: &[EventBatch]) -> Vec<u64> {
        batches.iter().map(|batch| batch.last).collect()
    }

    #[test]
    fn a_row_reads_as_it_was_written_and_a_garbled_one_not_at_all() {
        let events = [
            event(7, 1, AccountStatus::Active),
            event(u128::MAX, u32::MAX, AccountStatus::Blocked),
            event(7, 3, AccountStatus::Deleted),
        ];
        let mut bytes = to_bytes(&events);
        let read = from_bytes(&bytes, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(format!("{read:?}"), format!("{events:?}"));
        assert!(from_bytes(&bytes[1..], Timestamp::UNIX_EPOCH).is_none(), "cut short");
        bytes[EVENT_BYTES + 20] = 3;
        assert!(from_bytes(&bytes, Timestamp::UNIX_EPOCH).is_none(), "no status has this number");
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
        assert_eq!(lasts(&recent.take(30, 100, 10)), [40], "what the relay has read from the file already goes");
    }

    #[test]
    fn a_relay_that_is_far_behind_is_not_waited_for() {
        let recent = RecentEvents::default();
        let mut last = 0;
        for _ in 0..=MAX_RECENT / 1_000 {
            recent.add(batch(last, last + 1_000, 1_000));
            last += 1_000;
        }
        assert!(recent.take(0, u64::MAX, 10).is_empty(), "the file has them");
        assert_eq!(lasts(&recent.take(last - 1_000, u64::MAX, 10)), [last]);
    }
}
