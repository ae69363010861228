//! Time-ordered ids.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use uuid::Uuid;

use crate::Numbering;

/// The number of random bits of a UUID of version 7, besides its fraction of time (RFC 9562, 5.7).
const RANDOM_BITS: u32 = 62;

/// The largest value of the random bits.
pub(crate) const RANDOM: u64 = (1 << RANDOM_BITS) - 1;

/// Generates UUIDs of version 7 in strictly increasing order, so that inserts go to warm pages of an index.
///
/// An id contains its time with a resolution of a quarter of a microsecond (RFC 9562, 6.2, method 3). If ids are generated
/// faster, their time runs ahead of the clock.
#[derive(Debug, Default)]
pub struct TimeOrderedIds {
    /// The time in the last id.
    last: AtomicU64,
}

impl TimeOrderedIds {
    /// A generator without history.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the next id at `now`, with random bits.
    pub fn next(&self, now: Timestamp) -> Uuid {
        id(self.time(now), Uuid::new_v4().as_u64_pair().1)
    }

    /// Returns the next id at `now`, whose random bits encode `sequence` under the key of `numbering`.
    /// [`Numbering::sequence_of_id`] recovers the sequence, so the table needs no index of ids. Without the key the bits look
    /// random.
    pub fn next_of(&self, now: Timestamp, numbering: &Numbering, sequence: u64) -> Uuid {
        id(self.time(now), numbering.permuted_for_id(sequence))
    }

    /// Milliseconds since 1970 with 12 bits of fraction, greater than those of all earlier ids.
    fn time(&self, now: Timestamp) -> u64 {
        // A UUID cannot represent a time before 1970.
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

/// The random bits of an id.
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
