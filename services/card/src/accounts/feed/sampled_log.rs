//! Rate limiting of log lines: a few lines per second are logged, and the others are counted.

use std::time::{Duration, Instant};

/// The lines per second: enough to see what is wrong, too few to slow down a rebuild or to fill a disk.
pub(super) const MAX_LINES_PER_SECOND: u32 = 10;

const WINDOW: Duration = Duration::from_secs(1);

/// The rate limit of one kind of line.
#[derive(Debug, Default)]
pub(crate) struct SampledLog {
    window_start: Option<Instant>,
    lines_in_window: u32,
    left_out: u64,
}

impl SampledLog {
    /// Returns `Some` if the event at `now` is to be logged, with the number of events left out since the last line.
    pub(super) fn allow(&mut self, now: Instant) -> Option<u64> {
        let in_window = self.window_start.is_some_and(|start| now.saturating_duration_since(start) < WINDOW);
        if !in_window {
            self.window_start = Some(now);
            self.lines_in_window = 0;
        }
        if self.lines_in_window == MAX_LINES_PER_SECOND {
            self.left_out += 1;
            return None;
        }
        self.lines_in_window += 1;
        Some(self.flush())
    }

    /// Returns and resets the number of events left out since the last line, for the end of a burst.
    pub(super) fn flush(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_the_rate_is_counted() {
        let mut log = SampledLog::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        for _ in 0..MAX_LINES_PER_SECOND {
            assert_eq!(log.allow(at(0)), Some(0));
        }
        for _ in 0..1234 {
            assert_eq!(log.allow(at(999)), None);
        }
        assert_eq!(log.allow(at(1000)), Some(1234));
        assert_eq!(log.allow(at(1001)), Some(0));
    }

    #[test]
    fn flush_gives_the_rest_once() {
        let mut log = SampledLog::default();
        let now = Instant::now();
        for _ in 0..MAX_LINES_PER_SECOND + 3 {
            log.allow(now);
        }
        assert_eq!((log.flush(), log.flush()), (3, 0));
    }

    #[test]
    fn an_earlier_time_does_no_harm() {
        let mut log = SampledLog::default();
        let now = Instant::now() + Duration::from_secs(5);
        assert_eq!(log.allow(now), Some(0));
        assert_eq!(log.allow(now - Duration::from_secs(2)), Some(0));
    }
}
