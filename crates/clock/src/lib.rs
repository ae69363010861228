//! The time as a parameter: code that needs the time takes a [`Clock`], so that a test can set it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use jiff::Timestamp;

/// A clock with the resolution of the databases, a microsecond. Clones show the same time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The system's clock, which may be set back while the process runs.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `micros` since the Unix epoch until [`Clock::advance_micros`] moves it.
    pub fn fixed(micros: i64) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(micros))))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        let micros = match &self.0 {
            Source::System => system_micros(),
            Source::Manual(micros) => micros.load(Ordering::Relaxed),
        };
        // A time after the year 9999 cannot occur.
        Timestamp::from_microsecond(micros).unwrap_or_default()
    }

    /// Moves a fixed clock and all its clones; the system's clock is left alone.
    pub fn advance_micros(&self, micros: i64) {
        if let Source::Manual(now) = &self.0 {
            now.fetch_add(micros, Ordering::Relaxed);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
fn system_micros() -> i64 {
    // A time before 1970 cannot occur.
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_clock_moves_when_told() {
        let clock = Clock::fixed(1_764_066_600_000_000);
        let clone = clock.clone();
        assert_eq!(clone.now().to_string(), "2025-11-25T10:30:00Z");
        clock.advance_micros(123_456);
        assert_eq!(clone.now().to_string(), "2025-11-25T10:30:00.123456Z");
    }

    #[test]
    fn the_system_clock_tells_a_time_of_this_century() {
        let now = Clock::system().now().to_string();
        assert!(now.starts_with("20") && now.ends_with('Z'), "{now}");
    }
}
