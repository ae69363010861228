//! Whether something works: what `/readyz` and the log say of it.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long without a failure until it is over: requests that fail and requests that work may alternate, as where one page
/// of a file is damaged, and each change would be two lines in the log.
const QUIET: Duration = Duration::from_secs(30);

/// The outcomes of one kind of attempt. The first failure is logged with its cause, then each other cause, and the
/// recovery.
#[derive(Debug)]
pub struct Health {
    /// The log line of a failure.
    failed: &'static str,
    /// The log line of the recovery.
    recovered: &'static str,
    failing: Mutex<Option<Failing>>,
    /// Whether that is `Some`: an attempt that works takes no lock.
    is_noted: AtomicBool,
}

#[derive(Debug)]
struct Failing {
    cause: String,
    last: Instant,
    /// Whether an attempt has worked since.
    works: bool,
}

impl Health {
    /// Of something that works, with the log lines of a failure and of the recovery.
    pub const fn new(failed: &'static str, recovered: &'static str) -> Self {
        Health { failed, recovered, failing: Mutex::new(None), is_noted: AtomicBool::new(false) }
    }

    /// Notes the result of an attempt. Returns whether nothing works from now on, and something did before.
    pub fn note<T>(&self, result: Result<T, &impl Display>) -> bool {
        self.note_at(result.map(drop), Instant::now)
    }

    fn note_at(&self, result: Result<(), &impl Display>, now: impl FnOnce() -> Instant) -> bool {
        match result {
            Ok(()) if !self.is_noted.load(Ordering::Acquire) => false,
            Ok(()) => {
                let (mut failing, now) = (self.lock(), now());
                if let Some(failing) = failing.as_mut() {
                    failing.works = true;
                }
                if failing.take_if(|failing| now.saturating_duration_since(failing.last) >= QUIET).is_some() {
                    self.is_noted.store(false, Ordering::Release);
                    tracing::info!("{}", self.recovered);
                }
                false
            }
            Err(error) => {
                let (cause, mut failing) = (error.to_string(), self.lock());
                if failing.as_ref().is_none_or(|failing| failing.cause != cause) {
                    tracing::error!(%error, "{}", self.failed);
                }
                let before = failing.replace(Failing { cause, last: now(), works: false });
                self.is_noted.store(true, Ordering::Release);
                before.is_none_or(|failing| failing.works)
            }
        }
    }

    /// Why nothing works now: the last attempt failed.
    pub fn failure(&self) -> Option<String> {
        self.lock().as_ref().filter(|failing| !failing.works).map(|failing| failing.cause.clone())
    }

    /// Why some attempts fail: one failed lately, and others have worked since.
    pub fn warning(&self) -> Option<String> {
        let failing = self.lock();
        let lately = failing.as_ref().filter(|failing| failing.works && failing.last.elapsed() < QUIET);
        lately.map(|failing| failing.cause.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Failing>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_lasts_until_an_attempt_works_and_warns_until_all_do() {
        let health = Health::new("it failed", "it works again");
        let start = Instant::now();
        let note = |result, seconds| health.note_at(result, || start + Duration::from_secs(seconds));
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
