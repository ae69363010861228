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

mod batch;
mod lines;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use account_events::{AccountEvent, AccountId, AccountStatus};
use event_log::{EventLog, LogError, Positions};

use self::batch::{Batch, BatchReader};
use self::lines::EventLines;
use crate::accounts::checkpoint::Checkpoints;
use crate::accounts::quarantine::{self, Quarantine, QuarantinedRecord};
use crate::accounts::status::{Stall, ViewStatus, remaining};
use crate::accounts::view::{Applied, ViewWriter};
use crate::http::error::CardError;
use crate::store::Store;

/// How long one poll waits for records, which bounds how long the feed takes to notice the end of the service.
const POLL: Duration = Duration::from_millis(250);

/// As [`POLL`], while the events are awaited that the account service's outbox held at the start.
const BACKLOG_POLL: Duration = Duration::from_millis(5);

/// How long the log may take to say where it begins or ends.
const OFFSETS_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the age of the view is measured: often enough that a bound of a second, the least there is, is not passed
/// while all is well.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// The pause after a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// A rebuild that takes longer than this shows its progress, and again each time as much has passed.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Batches that are read and not applied yet while the view is being rebuilt, at most.
const BATCHES_AHEAD: usize = 4;

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
    /// Records in quarantine that the card database is still to keep.
    pub(crate) unkept: Vec<QuarantinedRecord>,
    pub(crate) checkpoints: Checkpoints,
    /// Set once the log has the events that the account service's outbox held at the start, where both run in one process.
    pub(crate) backlog_published: Option<Arc<AtomicBool>>,
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
    /// Whether `ends` counts the events that the account service's outbox held at the start.
    counts_backlog: bool,
    started: Instant,
    reported: Instant,
}

impl AccountFeed {
    /// Feeds the view until the service ends.
    pub(crate) fn run(mut self) {
        let mut positions = self.checkpoints.load(&mut self.view);
        let mut rebuild = None;
        let mut quarantine = Quarantine::default();
        while !stopping(&self.stopping) {
            let Err(error) = self.feed_until_failure(&mut positions, &mut rebuild, &mut quarantine) else {
                return;
            };
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
        quarantine: &mut Quarantine,
    ) -> Result<(), FeedError> {
        self.log.prepare()?;
        // Read before the ends: what was published by then is before them.
        let counts_backlog = self.is_backlog_published();
        let starts = self.log.start_offsets(OFFSETS_TIMEOUT)?;
        let (ends, now) = (self.log.end_offsets(OFFSETS_TIMEOUT)?, Instant::now());
        self.checkpoints.note_starts(starts);
        if self.checkpoints.contradicted(&mut self.view, &ends) {
            positions.clear();
        }
        match rebuild {
            // A topic that was made anew meanwhile may end before where the old one did.
            Some(rebuild) => rebuild.ends.iter_mut().for_each(|(partition, end)| {
                *end = ends.get(partition).copied().unwrap_or(0).min(*end);
            }),
            None => *rebuild = Some(Rebuild { ends, counts_backlog, started: now, reported: now }),
        }
        self.status.cut(self.checkpoints.warnings());
        let mut lines = EventLines::default();
        let mut reader = BatchReader::new(self.log.reader(positions)?, self.checkpoints.known(), quarantine);
        tracing::info!(log = self.log.describe(), "Kafka consumer started successfully");
        *positions = reader.positions();
        self.status.read(0, 0, positions.clone());
        while let Some(rebuild) = rebuild.as_mut().filter(|_| self.status.is_catching_up() && !stopping(&self.stopping))
        {
            if self.rebuild(&mut reader, rebuild, positions, &mut lines)?.is_break() {
                positions.clear();
                reader.begin_anew(self.log.reader(positions)?);
                *positions = reader.positions();
            }
        }
        while !stopping(&self.stopping) {
            if self.unkept.is_empty() {
                self.checkpoints.write_if_due(|| (reader.positions(), reader.durable_positions()));
            }
            self.apply(reader.read(POLL), positions, &mut lines)?;
        }
        if !self.status.is_catching_up() && self.unkept.is_empty() {
            self.checkpoints.write_last((reader.positions(), reader.durable_positions()));
        }
        Ok(())
    }

    /// Takes into the view what the log has up to where the rebuild has to get to. It breaks off when the log is found to be
    /// another one than that of the checkpoint: the view is empty then.
    ///
    /// While this thread gathers a batch, another one reads and decodes the next ones. Batches are gathered in the order they were
    /// read, and the view, once it has settled, stands where the last one ends.
    fn rebuild(
        &mut self,
        reader: &mut BatchReader<'_>,
        rebuild: &mut Rebuild,
        positions: &mut Positions,
        lines: &mut EventLines,
    ) -> Result<ControlFlow<()>, FeedError> {
        let checked = self.check_rebuild(rebuild, positions)?;
        if checked.is_break() || !self.status.is_catching_up() {
            return Ok(checked);
        }
        let poll = if rebuild.counts_backlog { POLL } else { BACKLOG_POLL };
        let (ends, stop) = (rebuild.ends.clone(), Arc::clone(&self.stopping));
        std::thread::scope(|scope| {
            let (ahead, batches) = sync_channel(BATCHES_AHEAD);
            let read_all = move || {
                loop {
                    let batch = reader.read(poll);
                    let is_last = batch.failure.is_some() || remaining(&batch.positions, &ends) == 0;
                    // Nobody takes it where one before could not be applied.
                    if ahead.send(batch).is_err() || is_last || stopping(&stop) {
                        return;
                    }
                }
            };
            let thread = std::thread::Builder::new().name("account-reader".to_owned());
            thread.spawn_scoped(scope, read_all).map_err(|error| LogError::Unavailable(error.to_string()))?;
            for batch in batches {
                self.apply(batch, positions, lines)?;
                if self.check_rebuild(rebuild, positions)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Takes what has come into the view. `positions` are how far it has come then.
    fn apply(&mut self, batch: Batch, positions: &mut Positions, lines: &mut EventLines) -> Result<(), FeedError> {
        // Asked for once: at each of millions of events it would take as long as to decode it.
        let (unclosed, now) = (&mut self.unclosed, Instant::now());
        self.checkpoints.take(&batch.samples);
        let mut take = |event: &AccountEvent, applied| {
            if event.status == AccountStatus::Deleted {
                unclosed.push(event.account_id);
            }
            lines.applied(event, applied, now);
        };
        let is_rebuilding = self.status.is_catching_up();
        for event in &batch.events {
            let applied = match is_rebuilding {
                true => {
                    self.view.gather(event);
                    Applied::Updated
                }
                false => self.view.apply(event),
            };
            take(event, applied);
        }
        if batch.records == 0 {
            lines.quiet();
        }
        self.status.read(batch.records, batch.poison, batch.positions.clone());
        self.status.troubled(batch.trouble);
        *positions = batch.positions;
        self.keep_quarantined(batch.quarantined);
        self.close_accounts()?;
        if let Some(failure) = batch.failure {
            return Err(failure.into());
        }
        if self.status.recovered() {
            tracing::info!("the account view follows the event log again");
        }
        Ok(())
    }

    /// Puts records into quarantine. If the database cannot take them now, they wait; there are never many. No checkpoint leaves
    /// them behind meanwhile: if the service ends, they are found again at the next start.
    fn keep_quarantined(&mut self, records: Vec<QuarantinedRecord>) {
        let waited = !self.unkept.is_empty();
        self.unkept.extend(records);
        if let Err(error) = quarantine::keep(&mut self.unkept, &self.store)
            && !waited
        {
            tracing::warn!(%error, "records in quarantine are counted, and will be kept when the database takes them");
        }
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

    /// Looks how far the view has come. It breaks off when the view was that of another log's checkpoint, and is empty now.
    fn check_rebuild(&mut self, rebuild: &mut Rebuild, positions: &Positions) -> Result<ControlFlow<()>, FeedError> {
        let mut left = remaining(positions, &rebuild.ends);
        if self.checkpoints.disproved(&mut self.view, positions, left == 0) {
            return Ok(ControlFlow::Break(()));
        }
        if left == 0 && !rebuild.counts_backlog && self.is_backlog_published() {
            rebuild.ends = self.log.end_offsets(OFFSETS_TIMEOUT)?;
            rebuild.counts_backlog = true;
            left = remaining(positions, &rebuild.ends);
        }
        if left == 0 {
            self.view.settle();
        }
        let (records, seconds) = (self.status.records(), rebuild.started.elapsed().as_secs_f64());
        if left == 0 && rebuild.counts_backlog && self.unclosed.is_empty() && self.close_checkpointed() {
            self.status.caught_up();
            tracing::info!(records, seconds, "the account view holds every account");
        } else if rebuild.reported.elapsed() >= PROGRESS_INTERVAL {
            rebuild.reported = Instant::now();
            let rate = (records as f64 / seconds) as u64;
            tracing::info!(records, records_per_second = rate, left, "the account view is being rebuilt");
        }
        Ok(ControlFlow::Continue(()))
    }

    fn is_backlog_published(&self) -> bool {
        self.backlog_published.as_ref().is_none_or(|published| published.load(Ordering::Acquire))
    }

    /// Closes the accounts that are deleted in the checkpoint, and tells whether all are closed. If the database cannot do it
    /// now, the view goes on, and they are closed later.
    fn close_checkpointed(&mut self) -> bool {
        let go_on = || !stopping(&self.stopping);
        self.checkpoints.close_deleted(&self.view, &self.store, CLOSED_AT_ONCE, &go_on).unwrap_or(false)
    }
}

/// Measures the age of the view: what the log had a moment ago, the view has or has not.
pub(crate) fn watch(log: &dyn EventLog, status: &ViewStatus, stop: &AtomicBool) {
    while !stopping(stop) {
        let asked = Instant::now();
        status.warned(log.warnings());
        match log.end_offsets(OFFSETS_TIMEOUT) {
            Ok(ends) => match status.compare(&ends, asked) {
                Some(Stall::Began(failure)) => {
                    tracing::warn!(failure, "the account view does not follow the event log")
                }
                Some(Stall::Ended) => tracing::info!("the account view follows all partitions of the event log again"),
                None => {}
            },
            Err(error) => status.unanswered(error.to_string()),
        }
        std::thread::park_timeout(WATCH_INTERVAL);
    }
}

fn stopping(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Acquire)
}
