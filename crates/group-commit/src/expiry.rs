//! When stored idempotency keys are removed.

use std::time::Duration;

/// Keys that an idle writer removes in one transaction: some milliseconds.
const IDLE_LIMIT: usize = 1_000;

/// The interval between removals once no expired key is left. Expired keys take up space for this much longer.
const PAUSE_MICROS: i64 = 60_000_000;

/// Which stored keys have expired, and how many of them a transaction removes. Times are microseconds since 1970.
#[derive(Debug, Clone)]
pub struct KeyExpiry {
    keep_micros: i64,
    /// When the next removal is due.
    due: i64,
}

impl KeyExpiry {
    /// Keys are kept for `keep`.
    pub fn new(keep: Duration) -> Self {
        Self { keep_micros: i64::try_from(keep.as_micros()).unwrap_or(i64::MAX), due: i64::MIN }
    }

    /// Keys that were stored at this time or earlier have expired.
    pub fn expired(&self, now: i64) -> i64 {
        now.saturating_sub(self.keep_micros)
    }

    /// How many expired keys a transaction removes that stores `stored` keys: more than it stores, so that removals keep up.
    /// 0 if none is due.
    pub fn limit(&self, now: i64, stored: usize) -> usize {
        if now < self.due { 0 } else { stored * 2 }
    }

    /// How many expired keys an idle writer removes. 0 if no removal is due.
    pub fn idle_limit(&self, now: i64) -> usize {
        if now < self.due { 0 } else { IDLE_LIMIT }
    }

    /// Records that a transaction that might remove `limit` keys has removed `removed`.
    pub fn record(&mut self, now: i64, limit: usize, removed: usize) {
        if limit > 0 && removed < limit {
            self.due = now.saturating_add(PAUSE_MICROS.min(self.keep_micros));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removals_go_on_until_one_finds_less_than_it_may_remove() {
        let mut expiry = KeyExpiry::new(Duration::from_hours(1));
        let now = 5_000_000_000;
        assert_eq!(expiry.expired(now), now - 3_600_000_000);
        assert_eq!((expiry.limit(now, 0), expiry.limit(now, 7), expiry.idle_limit(now)), (0, 14, IDLE_LIMIT));
        expiry.record(now, 14, 14);
        assert_eq!(expiry.limit(now, 7), 14, "there may be more");
        expiry.record(now, 14, 13);
        assert_eq!((expiry.limit(now, 7), expiry.idle_limit(now)), (0, 0));
        expiry.record(now + 1, 0, 0);
        assert_eq!(expiry.idle_limit(now + PAUSE_MICROS), IDLE_LIMIT);
    }
}
