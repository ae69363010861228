//! The events of one transaction as a row of the outbox.

use account_events::{AccountId, AccountStatus};
use http_server::TraceParent;
use jiff::Timestamp;
use uuid::Uuid;

use crate::ledger::OutboxEvent;

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
}
