//! The status of the account view: whether it is complete (ARCHITECTURE.md C3), and its age (C5).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use account_events::AccountStatus;
use event_log::Positions;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use crate::accounts::view::AccountView;

/// A partition whose position is not at its end counts as stalled when the position has not moved for so long.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// The status, written by the feed and its watch, read by handlers.
#[derive(Debug, Default)]
pub struct ViewStatus {
    /// Whether the view has reached the end offsets of the start. Never reset.
    caught_up: AtomicBool,
    /// Records read since the start.
    records: AtomicU64,
    /// Records that could not be decoded, since the start.
    quarantined: AtomicU64,
    progress: Mutex<Progress>,
    /// The maximum age at which cards are created; unlimited if `None`.
    max_age: Option<Duration>,
}

#[derive(Debug, Default)]
pub(crate) struct Progress {
    positions: Positions,
    partitions: BTreeMap<u32, Partition>,
    /// When the view first was complete.
    caught_up_at: Option<Instant>,
    /// When the log last returned its end offsets.
    answered_at: Option<Instant>,
    /// Why the feed cannot read the log.
    failure: Option<String>,
    /// Why the feed cannot read some partitions.
    pub(crate) trouble: Option<String>,
    /// Which partitions are stalled.
    stalled: Option<String>,
    /// Why the log does not return its end offsets. A Kafka consumer reports no outage by itself.
    pub(crate) unanswered: Option<String>,
    /// Problems with the settings of the log.
    pub(crate) warnings: Vec<String>,
    /// Partitions whose first records were deleted.
    pub(crate) cut: Vec<String>,
    /// What the log says of itself; `None` until the first answer.
    pub(crate) log: Option<LogState>,
}

/// What the owner record says of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LogState {
    /// The id of the log; empty if there is no owner record.
    pub(crate) id: String,
    /// Whether the log may lack accounts.
    pub(crate) is_incomplete: bool,
}

/// The progress in one partition, as of the last end offsets.
#[derive(Debug)]
struct Partition {
    /// The last time at which the view is known to have had the whole partition; `None` if it never had.
    current_at: Option<Instant>,
    end: u64,
    position: u64,
    /// When the position last moved or was at the end.
    moved_at: Instant,
}

impl Partition {
    /// The number of unread records.
    fn lag(&self) -> u64 {
        self.end.saturating_sub(self.position)
    }
}

/// A change in the stalled partitions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stall {
    /// Partitions stalled; none was stalled before.
    Began(String),
    /// No partition is stalled any more.
    Ended,
}

impl ViewStatus {
    pub(crate) fn new(max_age: Option<Duration>) -> Self {
        ViewStatus { max_age, ..ViewStatus::default() }
    }

    /// Why no cards can be created with this view now, if so.
    pub fn unready(&self) -> Option<String> {
        if self.is_catching_up() {
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

    /// Whether the view is not complete yet.
    pub fn is_catching_up(&self) -> bool {
        !self.caught_up.load(Ordering::Acquire)
    }

    /// Records read since the start.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// The positions of the feed: the view has every record before them.
    pub(crate) fn positions(&self) -> Positions {
        self.lock().positions.clone()
    }

    pub(crate) fn read(&self, records: usize, quarantined: usize, positions: Positions) {
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.quarantined.fetch_add(quarantined as u64, Ordering::Relaxed);
        self.lock().positions = positions;
    }

    pub(crate) fn caught_up(&self) {
        let mut progress = self.lock();
        let now = *progress.caught_up_at.get_or_insert_with(Instant::now);
        progress
            .partitions
            .values_mut()
            .for_each(|partition| partition.current_at = partition.current_at.or(Some(now)));
        self.caught_up.store(true, Ordering::Release);
    }

    /// How long a partition has been stalled, the longest; `None` if none is, or if an error is the known cause.
    pub(crate) fn stalled_for(&self) -> Option<Duration> {
        let progress = self.lock();
        let unread = progress.partitions.values().filter(|partition| partition.position != partition.end);
        let longest = unread.map(|partition| partition.moved_at.elapsed()).max()?;
        (progress.trouble.is_none() && progress.stalled.is_some()).then_some(longest)
    }

    /// Compares the positions with the end offsets of each partition at the time `at`. Returns a change in the stalled partitions.
    pub(crate) fn compare(&self, ends: &Positions, at: Instant) -> Option<Stall> {
        let mut progress = self.lock();
        let Progress { positions, partitions, caught_up_at, answered_at, unanswered, stalled, .. } = &mut *progress;
        *unanswered = None;
        partitions.retain(|number, _| ends.contains_key(number));
        for (number, end) in ends {
            let position = positions.get(number).copied().unwrap_or(0);
            let partition = partitions.entry(*number).or_insert_with(|| Partition {
                // A new partition did not exist at the last comparison.
                current_at: caught_up_at.and(answered_at.or(*caught_up_at)),
                end: *end,
                position,
                moved_at: at,
            });
            let has_moved = position != partition.position;
            (partition.end, partition.position) = (*end, position);
            // A position beyond the end was reached after the end was asked for. If it stays there, the topic was recreated.
            if position == *end || (position > *end && has_moved) {
                partition.current_at = Some(at);
            }
            if position == *end || has_moved {
                partition.moved_at = at;
            }
        }
        *answered_at = Some(at);
        let is_stalled = |partition: &Partition| at.saturating_duration_since(partition.moved_at) >= STALLED_AFTER;
        let text = |(number, partition): (&u32, &Partition)| {
            let (seconds, Partition { position, end, .. }) = (partition.moved_at.elapsed().as_secs(), partition);
            let place = match end.checked_sub(*position) {
                Some(lag) => format!("{lag} before its end"),
                None => format!("beyond its end at {end}: the topic was recreated"),
            };
            format!("partition {number} has brought nothing for {seconds} s at offset {position}, {place}")
        };
        let texts: Vec<_> = partitions.iter().filter(|(_, partition)| is_stalled(partition)).map(text).collect();
        let now = (!texts.is_empty()).then(|| texts.join("; "));
        match (std::mem::replace(stalled, now.clone()), now) {
            (None, Some(text)) => Some(Stall::Began(text)),
            (Some(_), None) => Some(Stall::Ended),
            _ => None,
        }
    }

    /// Changes what `/readyz` shows.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.lock());
    }

    /// What the log says of itself; `None` until the first answer.
    pub(crate) fn log(&self) -> Option<LogState> {
        self.lock().log.clone()
    }

    /// Records that the log cannot be read. Returns whether it could before.
    pub(crate) fn failed(&self, failure: String) -> bool {
        self.lock().failure.replace(failure).is_none()
    }

    /// Records that the log can be read. Returns whether it could not before.
    pub(crate) fn recovered(&self) -> bool {
        self.lock().failure.take().is_some()
    }

    /// The age of the view: the time since the view is known to have had the whole log, in its least current partition. `None`
    /// before the view was complete.
    pub fn age(&self) -> Option<Duration> {
        let progress = self.lock();
        let oldest = progress.partitions.values().map(|partition| partition.current_at).min();
        oldest.unwrap_or(progress.caught_up_at).map(|at| at.elapsed())
    }

    /// Whether the view has reached end offsets of all partitions that the log was asked for after `since`.
    pub(crate) fn is_complete_since(&self, since: Instant) -> bool {
        let progress = self.lock();
        let is_asked = progress.answered_at >= Some(since);
        let is_complete = |(number, partition): (&u32, &Partition)| {
            // A position that was beyond the end already may be that of another topic.
            let is_reached =
                || partition.position < partition.end && progress.positions.get(number) >= Some(&partition.end);
            partition.current_at >= Some(since) || is_reached()
        };
        is_asked && progress.partitions.iter().all(is_complete)
    }

    /// The age of the view in seconds, and its lag in records, each in the worst partition.
    pub(crate) fn age_and_lag(&self) -> (Option<f64>, u64) {
        let age = self.age().map(|age| (age.as_secs_f64() * 1_000.0).round() / 1_000.0);
        (age, self.lock().partitions.values().map(Partition::lag).max().unwrap_or(0))
    }

    /// For `/readyz`.
    pub(crate) fn details(&self, view: &AccountView) -> Value {
        let (age_seconds, lag) = self.age_and_lag();
        let progress = self.lock();
        let failures = [&progress.failure, &progress.trouble, &progress.stalled, &progress.unanswered];
        json!({
            "accounts": view.len(),
            "active": view.count(AccountStatus::Active),
            "blocked": view.count(AccountStatus::Blocked),
            "deleted": view.count(AccountStatus::Deleted),
            "caught_up": !self.is_catching_up(),
            "age_seconds": age_seconds,
            "lag": lag,
            "records": self.records(),
            "quarantined": self.quarantined.load(Ordering::Relaxed),
            "failure": failures.into_iter().flatten().next().map(|cause| process::public_cause(cause)),
            "warnings": progress.warnings.iter().chain(&progress.cut).collect::<Vec<_>>(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock()
    }
}

/// The number of offsets between `positions` and `ends`.
pub(crate) fn remaining(positions: &Positions, ends: &Positions) -> u64 {
    ends.iter().map(|(partition, end)| end.saturating_sub(positions.get(partition).copied().unwrap_or(0))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(offsets: [u64; 2]) -> Positions {
        (0..).zip(offsets).collect()
    }

    /// A status that has caught up with two partitions of 5 records at `start`.
    fn caught_up(start: Instant) -> ViewStatus {
        let status = ViewStatus::new(None);
        status.read(10, 0, positions([5, 5]));
        assert_eq!(status.compare(&positions([5, 5]), start), None);
        status.caught_up();
        status
    }

    #[test]
    fn a_partition_that_brings_nothing_is_a_failure_however_well_the_other_is_read() {
        let start = Instant::now();
        let status = caught_up(start);
        let mut stalls = Vec::new();
        for second in 1..=7 {
            status.read(1, 0, positions([5, 5 + second]));
            stalls.extend(status.compare(&positions([6, 5 + second]), start + Duration::from_secs(second)));
        }
        let [Stall::Began(text)] = &stalls[..] else { panic!("{stalls:?}") };
        assert!(text.starts_with("partition 0 ") && text.contains("offset 5, 1 before its end"), "{text}");
        let progress = status.lock();
        assert_eq!(progress.partitions[&0].current_at, Some(start), "the age is the worst partition's");
        assert_eq!(progress.partitions[&1].current_at, Some(start + Duration::from_secs(7)));
        drop(progress);
        status.read(1, 0, positions([6, 12]));
        assert_eq!(status.compare(&positions([6, 12]), start + Duration::from_secs(8)), Some(Stall::Ended));
    }

    #[test]
    fn a_position_beyond_the_end_of_a_recreated_topic_is_stalled_and_old() {
        let start = Instant::now();
        let status = caught_up(start);
        status.read(1, 0, positions([6, 5]));
        let after = |seconds| start + Duration::from_secs(seconds);
        // Read after the end was asked for.
        assert_eq!(status.compare(&positions([5, 5]), after(1)), None);
        assert_eq!(status.lock().partitions[&0].current_at, Some(after(1)));
        assert_eq!(status.compare(&positions([2, 5]), after(2)), None);
        let Some(Stall::Began(text)) = status.compare(&positions([2, 5]), after(7)) else { panic!("not stalled") };
        assert!(text.starts_with("partition 0 ") && text.contains("beyond its end at 2"), "{text}");
        assert_eq!(status.lock().partitions[&0].current_at, Some(after(1)));
    }

    #[test]
    fn a_partition_that_is_read_slowly_or_has_nothing_new_is_not_stalled() {
        let start = Instant::now();
        let status = caught_up(start);
        for second in 1..=20 {
            status.read(1, 0, positions([5 + second, 5]));
            assert_eq!(status.compare(&positions([1_000, 5]), start + Duration::from_secs(second)), None);
        }
    }

    #[test]
    fn a_partition_that_is_added_counts_as_lag_and_is_as_old_as_the_last_look() {
        let start = Instant::now();
        let status = caught_up(start);
        let ends = Positions::from([(0, 5), (1, 5), (2, 4)]);
        assert_eq!(status.compare(&ends, start + Duration::from_secs(1)), None);
        let progress = status.lock();
        assert_eq!((progress.partitions[&2].lag(), progress.partitions[&2].current_at), (4, Some(start)));
    }
}
