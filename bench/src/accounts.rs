//! Accounts without an account service: their ids, and the records that tell of them.

use account_events::{AccountEvent, AccountId, AccountStatus, Envelope, EventType, Version};
use event_log::Record;

/// When the first account was made, in milliseconds as a UUID counts them, and how many are made a millisecond.
const FIRST_MILLISECOND: u64 = 1_764_066_600_000;
const ACCOUNTS_A_MILLISECOND: u64 = 20;

/// The id of account `number`: a UUIDv7 as any other, but always the same one.
pub(crate) fn account_id(number: u64) -> anyhow::Result<AccountId> {
    let milliseconds = FIRST_MILLISECOND + number / ACCOUNTS_A_MILLISECOND;
    let (a, b) = (scattered(2 * number), scattered(2 * number + 1));
    let text = format!(
        "{:08x}-{:04x}-7{:03x}-{:04x}-{:012x}",
        milliseconds >> 16,
        milliseconds & 0xffff,
        a & 0xfff,
        0x8000 | (a >> 16) & 0x3fff,
        b & 0xffff_ffff_ffff,
    );
    Ok(text.parse()?)
}

/// The event of an account that has this version since just now.
pub(crate) fn event(account_id: AccountId, version: Version) -> AccountEvent {
    let event_type = if version == 1 { EventType::Created } else { EventType::StatusChanged };
    AccountEvent { event_type, account_id, status: AccountStatus::Active, version: Some(version) }
}

/// The record of a new account, with all that the account service's have.
pub(crate) fn record(account_id: AccountId, number: u64) -> Record {
    let traceparent = format!("00-{:016x}{number:016x}-{:016x}-01", scattered(number), scattered(!number));
    let event = event(account_id, 1);
    Envelope { event, version: 1, time: "2025-11-25T10:30:00.123456Z", traceparent: &traceparent }.encode()
}

/// Spreads numbers over 64 bits, each to another place (SplitMix64).
fn scattered(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_distinct_uuids_of_version_7() {
        let ids: HashSet<_> = (0..10_000).map(|number| account_id(number).unwrap()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.0.get_version_num() == 7));
    }
}
