//! The feed: event log to account view. Every instance reads all partitions for itself, as a member of no group, because
//! each needs every account.
//!
//! It first fixes where the log ends, and the instance is ready once the view has got there (C3). When the log is away the
//! view stays as it is, and the feed goes on from where it was (C5). A record that tells of nothing goes to quarantine.
//!
//! The feed also has deleted accounts closed in the card database, so that a deletion which any instance knows of is known
//! there (C4). The card closer alone would not do: while its group misses a member that died, nobody has that member's
//! share; a database of this instance's own would learn of this instance's share only; and one that was put back to an
//! older copy would never hear again of what the group has behind it. Closing again changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use account_events::{AccountEvent, AccountId, AccountStatus};
use event_log::{EventLog, LogError, Positions, Reader, RecordRef};
use process::SampledLog;

use crate::account_view::{Applied, ViewWriter};
use crate::error::CardError;
use crate::quarantine::Quarantine;
use crate::store::Store;
use crate::view_checkpoint::Checkpoints;
use crate::view_status::{ViewStatus, remaining};

/// How long one poll waits for records, which bounds how long the feed takes to notice the end of the service.
const POLL: Duration = Duration::from_millis(250);

/// How long the log may take to say where it ends.
const END_OFFSETS_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the age of the view is measured: often enough that a bound of a second, the least there is, is not passed
/// while all is well.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// The pause after a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// A rebuild that takes longer than this shows its progress, and again each time as much has passed.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Accounts that are closed with one command.
const CLOSED_AT_ONCE: usize = 1_000;

/// Deleted accounts that wait for the card database, at most. Beyond that the feed waits too.
const MAX_UNCLOSED: usize = 100_000;

pub(crate) struct AccountFeed {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) view: ViewWriter,
    pub(crate) store: Store,
    pub(crate) status: Arc<ViewStatus>,
    pub(crate) stopping: Arc<AtomicBool>,
    /// Deleted accounts that are still to be closed in the card database.
    pub(crate) unclosed: Vec<AccountId>,
    pub(crate) quarantine: Quarantine,
    pub(crate) checkpoints: Checkpoints,
}

#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("deleted accounts cannot be closed: {0}")]
    Store(#[from] CardError),
}

/// Where a rebuild has to get to, and how it is coming along.
struct Rebuild {
    ends: Positions,
    started: Instant,
    reported: Instant,
}

impl AccountFeed {
    /// Feeds the view until the service ends.
    pub(crate) fn run(mut self) {
        let mut positions = self.checkpoints.load(&mut self.view);
        let mut rebuild = None;
        while !stopping(&self.stopping) {
            let Err(error) = self.feed_until_failure(&mut positions, &mut rebuild) else { return };
            if self.status.failed(error.to_string()) {
                tracing::warn!(%error, "the account view stays as it is until the event log can be read");
            }
            std::thread::park_timeout(PAUSE);
        }
    }

    fn feed_until_failure(
        &mut self,
        positions: &mut Positions,
        rebuild: &mut Option<Rebuild>,
    ) -> Result<(), FeedError> {
        self.log.prepare()?;
        let (ends, now) = (self.log.end_offsets(END_OFFSETS_TIMEOUT)?, Instant::now());
        if self.checkpoints.contradicted(&mut self.view, &ends) {
            positions.clear();
        }
        match rebuild {
            // A topic that was made anew meanwhile may end before where the old one did.
            Some(rebuild) => rebuild.ends.iter_mut().for_each(|(partition, end)| {
                *end = ends.get(partition).copied().unwrap_or(0).min(*end);
            }),
            None => *rebuild = Some(Rebuild { ends, started: now, reported: now }),
        }
        let mut reader = self.log.reader(positions)?;
        *positions = reader.positions();
        tracing::info!(log = self.log.describe(), "Kafka consumer started successfully");
        let mut lines = EventLines::default();
        while !stopping(&self.stopping) {
            match rebuild.as_mut().filter(|_| self.status.is_catching_up()) {
                Some(rebuild) => {
                    let to_the_end = remaining(positions, &rebuild.ends) == 0;
                    if self.checkpoints.disproved(&mut self.view, positions, to_the_end) {
                        positions.clear();
                        reader = self.log.reader(positions)?;
                        *positions = reader.positions();
                        continue;
                    }
                    self.check_rebuild(rebuild, positions);
                }
                // A record that was not kept in quarantine is found again, where the checkpoint before ends.
                None if self.quarantine.is_complete() => self.checkpoints.write_if_due(|| reader.durable_positions()),
                None => {}
            }
            let fed = self.feed_next(reader.as_mut(), &mut lines);
            // What was taken before a failure is not read again.
            *positions = reader.positions();
            fed?;
            if self.status.recovered() {
                tracing::info!("the account view follows the event log again");
            }
        }
        if !self.status.is_catching_up() && self.quarantine.is_complete() {
            self.checkpoints.write_last(reader.durable_positions());
        }
        Ok(())
    }

    /// Takes what has come into the view.
    fn feed_next(&mut self, reader: &mut dyn Reader, lines: &mut EventLines) -> Result<(), FeedError> {
        let (view, unclosed, quarantine) = (&mut self.view, &mut self.unclosed, &mut self.quarantine);
        let checkpoints = &mut self.checkpoints;
        let mut poison = 0;
        // Asked for once: at each of millions of records it would take as long as to decode it.
        let now = Instant::now();
        let records = reader.poll(POLL, &mut |record| {
            checkpoints.take(record);
            match AccountEvent::decode(record) {
                Ok(event) => {
                    let applied = view.apply(&event);
                    if event.status == AccountStatus::Deleted {
                        unclosed.push(event.account_id);
                    }
                    lines.applied(&event, applied, now);
                }
                Err(reason) => {
                    poison += 1;
                    lines.quarantined(record, &reason, now);
                    quarantine.take(record, reason);
                }
            }
        })?;
        if records == 0 {
            lines.quiet();
        }
        self.status.read(records, poison, reader.positions());
        self.quarantine.store(&self.store);
        self.close_accounts()
    }

    /// Closes what is to be closed. If the database cannot do it now, the view goes on, and they are closed later.
    fn close_accounts(&mut self) -> Result<(), FeedError> {
        while !self.unclosed.is_empty() {
            let rest = self.unclosed.len().saturating_sub(CLOSED_AT_ONCE);
            let accounts = self.unclosed.split_off(rest);
            if let Err(error) = self.store.close_accounts(accounts.clone()) {
                self.unclosed.extend(accounts);
                let few = self.unclosed.len() <= MAX_UNCLOSED;
                return if few { Ok(()) } else { Err(error.into()) };
            }
        }
        Ok(())
    }

    fn check_rebuild(&mut self, rebuild: &mut Rebuild, positions: &Positions) {
        let left = remaining(positions, &rebuild.ends);
        let all_closed = left == 0 && self.unclosed.is_empty() && self.close_checkpointed();
        let records = self.status.records();
        let seconds = rebuild.started.elapsed().as_secs_f64();
        if all_closed {
            self.status.caught_up();
            tracing::info!(records, seconds, "the account view holds every account");
        } else if rebuild.reported.elapsed() >= PROGRESS_INTERVAL {
            rebuild.reported = Instant::now();
            let rate = (records as f64 / seconds) as u64;
            tracing::info!(records, records_per_second = rate, left, "the account view is being rebuilt");
        }
    }

    /// Closes the accounts that are deleted in the checkpoint, and tells whether all are closed. If the database cannot do it
    /// now, the view goes on, and they are closed later.
    fn close_checkpointed(&mut self) -> bool {
        self.checkpoints.close_deleted(&self.view, &self.store, CLOSED_AT_ONCE).unwrap_or(false)
    }
}

/// Measures the age of the view: what the log had a moment ago, the view has or has not.
pub(crate) fn watch(log: &dyn EventLog, status: &ViewStatus, stop: &AtomicBool) {
    while !stopping(stop) {
        let asked = Instant::now();
        match log.end_offsets(END_OFFSETS_TIMEOUT) {
            Ok(ends) => status.compare(&ends, asked),
            Err(error) => status.unanswered(error.to_string()),
        }
        std::thread::park_timeout(WATCH_INTERVAL);
    }
}

fn stopping(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Acquire)
}

/// The lines that the seed's card service logs for each event. A few a second are logged and the others counted, so that
/// a replay is not slowed and a disk not filled.
#[derive(Default)]
struct EventLines {
    events: SampledLog,
    poison: SampledLog,
}

impl EventLines {
    fn applied(&mut self, event: &AccountEvent, applied: Applied, now: Instant) {
        let Some(left_out) = self.events.allow(now) else { return };
        say_left_out(left_out);
        let (event_type, id, status) = (event.event_type.as_str(), event.account_id, event.status.as_str());
        tracing::info!("Received account event: type={event_type}, account_id={id}, status={status}");
        if applied == Applied::Updated {
            tracing::info!("Updated account cache: account_id={id}, status={status}");
        }
    }

    /// Says after a burst what was left out of it.
    fn quiet(&mut self) {
        say_left_out(self.events.flush());
        let records = self.poison.flush();
        if records > 0 {
            tracing::warn!(records, "left out the lines of {records} records that went to quarantine");
        }
    }

    fn quarantined(&mut self, record: RecordRef<'_>, reason: &account_events::Unintelligible, now: Instant) {
        let Some(left_out) = self.poison.allow(now) else { return };
        let (partition, offset, code) = (record.partition, record.offset, reason.code());
        tracing::warn!(partition, offset, code, %reason, left_out, "a record went to quarantine");
    }
}

fn say_left_out(events: u64) {
    if events > 0 {
        tracing::info!(events, "left out the lines of {events} account events");
    }
}
