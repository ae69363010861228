//! The events of one transaction, on their way to the relay: handed over in memory, and as a row of the outbox for when
//! memory does not have them (after a restart, or when the event log was away).

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use account_events::{AccountId, AccountStatus};
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

/// The text of a row of the outbox.
pub(super) fn to_text(events: &[OutboxEvent]) -> String {
    let mut text = String::with_capacity(events.len() * 104);
    for OutboxEvent { event, version, traceparent, .. } in events {
        let separator = if text.is_empty() { "" } else { "\n" };
        let (id, status) = (event.account_id.0.simple(), event.status.as_str());
        // Writing to a string does not fail.
        let _ = write!(text, "{separator}{id} {version} {status} {traceparent}");
    }
    text
}

/// The events of a row, or the line that is none.
pub(super) fn from_text(text: &str, occurred_at: Timestamp) -> Result<Vec<OutboxEvent>, String> {
    text.lines().map(|line| from_line(line, occurred_at).ok_or_else(|| line.to_owned())).collect()
}

fn from_line(line: &str, occurred_at: Timestamp) -> Option<OutboxEvent> {
    let mut fields = line.splitn(4, ' ');
    let account_id = AccountId(Uuid::try_parse(fields.next()?).ok()?);
    let version = fields.next()?.parse().ok()?;
    let status = AccountStatus::parse(fields.next()?)?;
    let traceparent = fields.next()?.to_owned();
    Some(OutboxEvent::new(account_id, version, status, occurred_at, traceparent))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn event(id: u128, version: u32, status: AccountStatus) -> OutboxEvent {
        let account_id = AccountId(Uuid::from_u128(id));
        OutboxEvent::new(account_id, version, status, Timestamp::UNIX_EPOCH, TRACE.to_owned())
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
    fn a_row_reads_as_it_was_written_and_a_garbled_line_is_named() {
        let events = [
            event(7, 1, AccountStatus::Active),
            event(u128::MAX, 2, AccountStatus::Blocked),
            event(7, 3, AccountStatus::Deleted),
        ];
        let text = to_text(&events);
        let read = from_text(&text, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(format!("{read:?}"), format!("{events:?}"));
        for (from, to) in [(" 2 ", " two "), ("BLOCKED", "LOCKED"), ("ffff", "f-ff"), (" 1 ACTIVE ", " ")] {
            let line = from_text(&text.replacen(from, to, 1), Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(line.contains(to.trim()), "{line}");
        }
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
