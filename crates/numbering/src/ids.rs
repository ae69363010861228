//! Ids in the order of time.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use uuid::Uuid;

use crate::Numbering;

/// The bits of an id behind its time, version and variant (RFC 9562, 5.7).
const RANDOM_BITS: u32 = 62;

/// All of them.
pub(crate) const RANDOM: u64 = (1 << RANDOM_BITS) - 1;

/// Makes UUIDs of version 7. Those of one moment are in order too, so that they land on warm pages of an index.
///
/// An id has its time to a quarter of a microsecond (RFC 9562, 6.2, method 3), and no two have the same: where they come faster,
/// the time runs ahead.
#[derive(Debug, Default)]
pub struct TimeOrderedIds {
    /// The time of the last one.
    last: AtomicU64,
}

impl TimeOrderedIds {
    /// One that has made none yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next id, for the moment `now`; by chance, beside its time.
    pub fn next(&self, now: Timestamp) -> Uuid {
        id(self.time(now), Uuid::new_v4().as_u64_pair().1)
    }

    /// The next id, for the moment `now`, of the row with `sequence`. It tells the sequence to whoever has the key of
    /// `numbering` ([`Numbering::sequence_of_id`]), so the row is found without an index of ids, which is one tree less to
    /// write; to all others it looks like chance.
    pub fn next_of(&self, now: Timestamp, numbering: &Numbering, sequence: u64) -> Uuid {
        id(self.time(now), numbering.permuted_for_id(sequence))
    }

    /// Milliseconds since 1970 with 12 bits of fraction, greater than ever before.
    fn time(&self, now: Timestamp) -> u64 {
        // Times before 1970 have no place in a UUID.
        let microseconds = u64::try_from(now.as_microsecond()).unwrap_or(0);
        let time = ((microseconds / 1_000) << 12) | (microseconds % 1_000 * 4_096 / 1_000);
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(time.max(last + 1)));
        last.map_or(time, |last| time.max(last + 1))
    }
}

fn id(time: u64, random: u64) -> Uuid {
    let (milliseconds, fraction) = (time >> 12, time & 0xfff);
    Uuid::from_u64_pair(milliseconds << 16 | 0x7 << 12 | fraction, 0b10 << RANDOM_BITS | random & RANDOM)
}

/// What an id has behind its time, version and variant.
pub(crate) fn random_part(id: Uuid) -> u64 {
    id.as_u64_pair().1 & RANDOM
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 16] = *b"a 128 bit secret";

    #[test]
    fn ids_of_one_moment_are_in_order_and_carry_the_time() {
        let (ids, now) = (TimeOrderedIds::new(), Timestamp::constant(1_764_066_600, 123_456_789));
        let numbering = Numbering::decimal(KEY);
        let made: Vec<_> =
            (0..500).flat_map(|sequence| [ids.next(now), ids.next_of(now, &numbering, sequence)]).collect();
        assert!(made.is_sorted());
        for id in made {
            assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
            let (seconds, nanoseconds) = id.get_timestamp().unwrap().to_unix();
            assert_eq!((seconds, nanoseconds / 1_000_000), (1_764_066_600, 123));
        }
    }

    #[test]
    fn an_id_tells_its_sequence_to_whoever_has_the_key() {
        let (ids, now) = (TimeOrderedIds::new(), Timestamp::constant(1_764_066_600, 0));
        let (numbering, other) = (Numbering::decimal(KEY), Numbering::decimal(*b"another byte key"));
        for sequence in (1..1_000).chain([u64::from(u32::MAX), RANDOM]) {
            let id = ids.next_of(now, &numbering, sequence);
            assert_eq!(numbering.sequence_of_id(id), sequence);
            assert_ne!(other.sequence_of_id(id), sequence);
        }
    }
}
