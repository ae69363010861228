//! The health of one kind of operation, for `/readyz` and the log.

use std::fmt::Display;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A failure is over after this time without another. Successes and failures may alternate, as with one damaged page of a
/// file, and each change would otherwise be two lines in the log.
const QUIET: Duration = Duration::from_secs(30);

/// Records the results of one kind of operation. Logs the first failure, each failure with a different cause, and the
/// recovery.
#[derive(Debug)]
pub struct Health {
    failure_message: &'static str,
    recovery_message: &'static str,
    failing: Mutex<Option<Failing>>,
}

#[derive(Debug)]
struct Failing {
    cause: String,
    /// The time of the last failure.
    last: Instant,
    /// Whether an operation has succeeded since.
    succeeded: bool,
}

impl Health {
    /// A healthy state, with the log lines for a failure and for the recovery.
    pub const fn new(failure_message: &'static str, recovery_message: &'static str) -> Self {
        Health { failure_message, recovery_message, failing: Mutex::new(None) }
    }

    /// Records a result. Returns whether it is the first failure since the last success.
    pub fn record<T>(&self, result: Result<T, &impl Display>) -> bool {
        self.record_at(result.map(drop), Instant::now())
    }

    fn record_at(&self, result: Result<(), &impl Display>, now: Instant) -> bool {
        let mut failing = self.failing.lock();
        match result {
            Ok(()) => {
                if let Some(failing) = failing.as_mut() {
                    failing.succeeded = true;
                }
                if failing.take_if(|failing| now.saturating_duration_since(failing.last) >= QUIET).is_some() {
                    tracing::info!("{}", self.recovery_message);
                }
                false
            }
            Err(error) => {
                let cause = error.to_string();
                if failing.as_ref().is_none_or(|failing| failing.cause != cause) {
                    tracing::error!(%error, "{}", self.failure_message);
                }
                let before = failing.replace(Failing { cause, last: now, succeeded: false });
                before.is_none_or(|failing| failing.succeeded)
            }
        }
    }

    /// The cause of the last failure, if no operation has succeeded since.
    pub fn failure(&self) -> Option<String> {
        self.failing.lock().as_ref().filter(|failing| !failing.succeeded).map(|failing| failing.cause.clone())
    }

    /// The cause of a recent failure, if operations have succeeded since: some still fail.
    pub fn warning(&self) -> Option<String> {
        let failing = self.failing.lock();
        let recent = failing.as_ref().filter(|failing| failing.succeeded && failing.last.elapsed() < QUIET);
        recent.map(|failing| failing.cause.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_lasts_until_an_attempt_works_and_warns_until_all_do() {
        let health = Health::new("it failed", "it works again");
        let start = Instant::now();
        let note = |result, seconds| health.record_at(result, start + Duration::from_secs(seconds));
        assert!(!note(Ok(()), 0));
        assert_eq!((health.failure(), health.warning()), (None, None));
        assert!(note(Err(&"broken"), 0) && !note(Err(&"broken"), 0));
        assert_eq!((health.failure(), health.warning()), (Some("broken".to_owned()), None));
        note(Ok(()), 1);
        assert_eq!((health.failure(), health.warning()), (None, Some("broken".to_owned())));
        assert!(note(Err(&"broken"), 20));
        note(Ok(()), 40);
        assert!(health.warning().is_some(), "the last one is 20 s ago");
        note(Ok(()), 50);
        assert_eq!((health.failure(), health.warning()), (None, None));
    }
}
