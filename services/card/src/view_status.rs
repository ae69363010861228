//! How current the account view is: whether it holds every account yet (ARCHITECTURE.md C3), and how old what it shows
//! is (C5).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use account_events::AccountStatus;
use event_log::Positions;
use serde_json::{Value, json};

use crate::account_view::AccountView;

/// Written by the feed and its watch, read by handlers.
#[derive(Debug)]
pub struct ViewStatus {
    /// Whether the view has reached the ends that stood when it started. It never turns back.
    caught_up: AtomicBool,
    records: AtomicU64,
    quarantined: AtomicU64,
    progress: Mutex<Progress>,
    /// Beyond this age the view is no longer good for making cards; no bound if `None`.
    max_age: Option<Duration>,
}

#[derive(Debug, Default)]
struct Progress {
    positions: Positions,
    /// The last moment of which it is known that the view had everything.
    current_at: Option<Instant>,
    /// Records that the log had and the view had not, when that was last looked at.
    lag: u64,
    /// Why the feed cannot read.
    failure: Option<String>,
    /// Why the log does not say where it ends: a client of Kafka's that reads says nothing of an outage.
    unanswered: Option<String>,
}

impl ViewStatus {
    pub(crate) fn new(max_age: Option<Duration>) -> Self {
        ViewStatus {
            caught_up: AtomicBool::new(false),
            records: AtomicU64::new(0),
            quarantined: AtomicU64::new(0),
            progress: Mutex::default(),
            max_age,
        }
    }

    /// Why no card can be made by this view now, if so.
    pub fn unready(&self) -> Option<String> {
        if self.is_catching_up() {
            // What cannot be read does not catch up.
            return Some(match &self.lock().failure {
                Some(failure) => format!("the account view cannot catch up: {failure}"),
                None => "the account view is catching up".to_owned(),
            });
        }
        let max_age = self.max_age?;
        let age = self.age().unwrap_or(Duration::MAX);
        (age > max_age)
            .then(|| format!("the account view is {} s old, and may be {} s old", age.as_secs(), max_age.as_secs()))
    }

    /// Whether the view does not hold every account yet.
    pub fn is_catching_up(&self) -> bool {
        !self.caught_up.load(Ordering::Acquire)
    }

    /// Records that could not be understood, since the start.
    pub fn quarantined(&self) -> u64 {
        self.quarantined.load(Ordering::Relaxed)
    }

    /// Records read since the start.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    pub(crate) fn read(&self, records: usize, quarantined: usize, positions: Positions) {
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.quarantined.fetch_add(quarantined as u64, Ordering::Relaxed);
        self.lock().positions = positions;
    }

    pub(crate) fn caught_up(&self) {
        self.lock().current_at.get_or_insert_with(Instant::now);
        self.caught_up.store(true, Ordering::Release);
    }

    /// Takes note of where the log ended at `at`.
    pub(crate) fn compare(&self, ends: &Positions, at: Instant) {
        let mut progress = self.lock();
        progress.unanswered = None;
        progress.lag = remaining(&progress.positions, ends);
        if progress.lag == 0 {
            progress.current_at = Some(at);
        }
    }

    /// Notes that the log does not say where it ends.
    pub(crate) fn unanswered(&self, failure: String) {
        self.lock().unanswered = Some(failure);
    }

    /// Notes that the log cannot be read, and tells whether that is new.
    pub(crate) fn failed(&self, failure: String) -> bool {
        self.lock().failure.replace(failure).is_none()
    }

    /// Notes that the log can be read, and tells whether that is new.
    pub(crate) fn recovered(&self) -> bool {
        self.lock().failure.take().is_some()
    }

    /// How long ago the view is known to have had everything; `None` before it ever had.
    pub fn age(&self) -> Option<Duration> {
        self.lock().current_at.map(|at| at.elapsed())
    }

    /// For `/readyz`.
    pub(crate) fn details(&self, view: &AccountView) -> Value {
        let age = self.age();
        let progress = self.lock();
        json!({
            "accounts": view.len(),
            "active": view.count(AccountStatus::Active),
            "blocked": view.count(AccountStatus::Blocked),
            "deleted": view.count(AccountStatus::Deleted),
            "caught_up": !self.is_catching_up(),
            "age_seconds": age.map(|age| (age.as_secs_f64() * 1_000.0).round() / 1_000.0),
            "lag": progress.lag,
            "records": self.records(),
            "quarantined": self.quarantined(),
            "failure": progress.failure.as_ref().or(progress.unanswered.as_ref()).map(|cause| process::public_cause(cause)),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many offsets lie between `positions` and `ends`.
pub(crate) fn remaining(positions: &Positions, ends: &Positions) -> u64 {
    ends.iter().map(|(partition, end)| end.saturating_sub(positions.get(partition).copied().unwrap_or(0))).sum()
}
