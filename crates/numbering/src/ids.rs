//! Ids in the order of time.

use jiff::Timestamp;
use uuid::{ContextV7, Uuid};

/// Makes UUIDs of version 7. Those of one millisecond are in order too, so that they land on warm pages of an index.
#[derive(Debug, Default)]
pub struct TimeOrderedIds(ContextV7);

impl TimeOrderedIds {
    /// One that has made none yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next id, for the moment `now`.
    pub fn next(&self, now: Timestamp) -> Uuid {
        // Times before 1970 have no place in a UUID.
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        let nanoseconds = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
        Uuid::new_v7(uuid::Timestamp::from_unix(&self.0, seconds, nanoseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_moment_are_in_order_and_carry_the_time() {
        let (ids, now) = (TimeOrderedIds::new(), Timestamp::constant(1_764_066_600, 123_456_789));
        let made: Vec<_> = (0..1_000).map(|_| ids.next(now)).collect();
        assert!(made.is_sorted());
        let time = made[0].get_timestamp().unwrap();
        assert_eq!((time.to_unix().0, made[0].get_version_num()), (1_764_066_600, 7));
    }
}
