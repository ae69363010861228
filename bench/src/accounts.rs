//! Accounts and cards without a service that makes them. All of each follows from its number, so that nothing need be kept
//! to ask for any of them.

use account_events::{AccountEvent, AccountId, AccountStatus, Envelope, EventType, Version};
use event_log::Record;
use jiff::{SignedDuration, Timestamp};
use numbering::{Numbering, TimeOrderedIds};
use uuid::{Builder, Uuid};

/// When the first was made, in milliseconds since 1970; one is made each millisecond from then on.
const FIRST_MILLISECOND: u64 = 1_735_689_600_000;

/// The key of the numbers in a database that is filled with these.
pub(crate) const NUMBER_KEY: [u8; 16] = *b"the bench's own.";

/// A card is made so long after the account of its number: they share a key, and must not share an id.
const CARD_DELAY: SignedDuration = SignedDuration::from_micros(500);

/// `ce_time` of every record: as wide as any other.
const TIME: &str = "2025-11-25T10:30:00.123456Z";

/// Account `number`, from 1 on: its sequence in a database.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MadeAccount(pub(crate) u64);

impl MadeAccount {
    /// As a database with [`NUMBER_KEY`] gives it.
    pub(crate) fn id(self) -> AccountId {
        AccountId(TimeOrderedIds::new().next_of(moment(self.0), &Numbering::decimal(NUMBER_KEY), self.0))
    }

    /// The account that has this id, which is one of [`id`](Self::id).
    pub(crate) fn of(id: AccountId) -> Option<Self> {
        let (seconds, nanoseconds) = id.0.get_timestamp()?.to_unix();
        (seconds * 1_000 + u64::from(nanoseconds / 1_000_000)).checked_sub(FIRST_MILLISECOND).map(MadeAccount)
    }

    /// Of ten accounts one is blocked and one is deleted.
    pub(crate) fn status(self) -> AccountStatus {
        match self.0 % 10 {
            3 => AccountStatus::Blocked,
            7 => AccountStatus::Deleted,
            _ => AccountStatus::Active,
        }
    }

    /// Who is not active any more has changed once.
    pub(crate) fn version(self) -> Version {
        if self.status() == AccountStatus::Active { 1 } else { 2 }
    }

    /// Microseconds since 1970; greater than the last account's, so it serves as the outbox's sequence too.
    pub(crate) fn micros(self) -> u64 {
        (FIRST_MILLISECOND + self.0) * 1_000
    }

    /// The trace that it was made in.
    pub(crate) fn traceparent(self) -> String {
        format!("00-{:032x}-{:016x}-00", self.0, self.0)
    }

    /// The event that tells its state.
    pub(crate) fn event_type(self) -> EventType {
        EventType::of_version(self.version())
    }

    /// The record that tells its state.
    pub(crate) fn record(self) -> Record {
        let (account_id, status, version) = (self.id(), self.status(), self.version());
        self.encode(AccountEvent { event_type: self.event_type(), account_id, status, version: Some(version) }, version)
    }

    /// The record that told of it when it was new.
    pub(crate) fn first_record(self) -> Record {
        self.encode(active(self.id(), 1), 1)
    }

    fn encode(self, event: AccountEvent, version: Version) -> Record {
        Envelope { event, version, time: TIME, traceparent: &self.traceparent() }.encode()
    }
}

/// The event of an account that is active with this version.
pub(crate) fn active(account_id: AccountId, version: Version) -> AccountEvent {
    let event_type = if version == 1 { EventType::Created } else { EventType::StatusChanged };
    AccountEvent { event_type, account_id, status: AccountStatus::Active, version: Some(version) }
}

/// The id of card `number`, as a database with [`NUMBER_KEY`] gives it.
pub(crate) fn card_id(number: u64) -> Uuid {
    TimeOrderedIds::new().next_of(moment(number) + CARD_DELAY, &Numbering::hexadecimal(NUMBER_KEY), number)
}

fn moment(number: u64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_millis((FIRST_MILLISECOND + number) as i64)
}

/// An id that is as good as any for a view, in a tenth of the time that a database's own takes.
pub(crate) fn any_id(number: u64) -> AccountId {
    let random = (u128::from(scattered(number)) << 64) | u128::from(scattered(number ^ u64::MAX));
    let mut bytes = [0; 10];
    bytes.copy_from_slice(&random.to_be_bytes()[..10]);
    AccountId(Builder::from_unix_timestamp_millis(FIRST_MILLISECOND + number, &bytes).into_uuid())
}

/// A number that looks like chance, and is always the same (SplitMix64).
pub(crate) fn scattered(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_order_and_no_two_are_one() {
        let ids: Vec<_> = (1..1_000).map(|number| MadeAccount(number).id().0).collect();
        assert!(ids.is_sorted() && ids.iter().all(|id| id.get_version_num() == 7));
        assert!((1..1_000).all(|number| card_id(number) != MadeAccount(number).id().0));
        assert!(
            (1..1_000).all(|number| MadeAccount::of(MadeAccount(number).id()).is_some_and(|made| made.0 == number))
        );
    }
}
