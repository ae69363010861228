//! The feed applies the event log to the account view. Every instance reads all partitions, because its view needs every account.
//!
//! At the start the feed asks where the log ends. The instance is ready once the view has reached these offsets (ARCHITECTURE.md C3).
//! While the log is away the view stays as it is, and the feed continues at its positions (C5). Records that cannot be decoded go
//! to quarantine.
//!
//! The feed also closes deleted accounts in the card database (C4). The card closer alone is not enough. After a member of its
//! group dies, its partitions are unassigned for a while. With a database for each instance, a member closes only its share. The group's
//! position may be ahead of a database that was restored. Closing an account twice changes nothing.

mod batch;
mod sampled_log;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use account_events::{AccountEvent, AccountStatus};
use anyhow::Context as _;
use event_log::{EventLog, LogError, Positions};

use self::batch::{Batch, BatchReader};
pub(crate) use self::sampled_log::SampledLog;
pub(crate) use self::watch::watch;
use crate::accounts::checkpoint::Checkpoints;
use crate::accounts::event_ring::EventRing;
use crate::accounts::quarantine::{self, Place, Quarantine, QuarantinedRecord};
use crate::accounts::status::{LogState, ViewStatus, remaining};
use crate::accounts::view::ViewWriter;
use crate::accounts::waiters::Waiters;
use crate::closing::Closing;
use crate::store::Store;

/// How long one poll waits for records, and so how late the feed notices that the service stops.
const POLL: Duration = Duration::from_millis(250);

/// As [`POLL`], while the log may lack accounts.
const BACKLOG_POLL: Duration = Duration::from_millis(5);

/// How long the log may take to return its start or end offsets.
const OFFSETS_TIMEOUT: Duration = Duration::from_secs(5);

/// After how long a stalled partition a new reader is opened: a client may not recover after its topic was re-created with fewer
/// partitions and its broker restarted.
const REOPEN_AFTER: Duration = Duration::from_secs(10);

/// The pause after a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// How often the feed logs its progress while it catches up.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// The most batches that a catch-up reads ahead.
const BATCHES_AHEAD: usize = 4;

pub(crate) struct AccountFeed {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) view: ViewWriter,
    pub(crate) store: Store,
    pub(crate) status: Arc<ViewStatus>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) stopping: Arc<AtomicBool>,
    /// Deleted accounts that the card database has not closed yet. With too many of them the feed waits.
    pub(crate) closing: Closing,
    /// Records for the quarantine that the card database has not stored yet, by partition and offset.
    pub(crate) unstored: BTreeMap<(u32, u64), QuarantinedRecord>,
    /// The places in quarantine at the start.
    pub(crate) quarantined: HashSet<Place>,
    /// Places in quarantine whose records were decoded now, and that the card database has not removed yet.
    pub(crate) decoded: BTreeSet<Place>,
    /// Whether the start reads the whole log instead of the checkpoint.
    pub(crate) rebuild_view: bool,
    pub(crate) checkpoints: Checkpoints,
    /// The last events, for the event streams.
    pub(crate) ring: Arc<EventRing>,
    /// The next offset to read of each partition.
    pub(crate) positions: Positions,
    /// Limits the log lines about events.
    pub(crate) lines: SampledLog,
    /// Set once the log has the events that the account service's outbox held at the start; `None` if that is another process.
    pub(crate) backlog_published: Option<Arc<AtomicBool>>,
    /// The id of the log that is read, once it is known.
    pub(crate) log_id: Option<String>,
}

/// The target and the progress of catching up, which follows every start, with or without a checkpoint.
struct CatchUp {
    ends: Positions,
    /// Whether the log had every account when `ends` were asked for.
    is_complete: bool,
    started: Instant,
    reported: Instant,
}

impl AccountFeed {
    /// Applies events until the service stops.
    pub(crate) fn run(mut self) {
        if self.rebuild_view {
            tracing::info!("REBUILD_VIEW: the account view is rebuilt from the start of the event log");
        } else {
            self.positions = self.checkpoints.load(&mut self.view);
        }
        let mut catch_up = None;
        let mut quarantine = Quarantine::new(self.store.dropped().clone(), std::mem::take(&mut self.quarantined));
        while !stopping(&self.stopping) {
            let Err(error) = self.feed_until_failure(&mut catch_up, &mut quarantine) else {
                return;
            };
            let error = format!("{error:#}");
            if self.status.failed(error.clone()) {
                tracing::warn!(error, "the account view stays as it is until the event log can be read");
            }
            std::thread::park_timeout(PAUSE);
        }
    }

    fn feed_until_failure(
        &mut self,
        catch_up: &mut Option<CatchUp>,
        quarantine: &mut Quarantine,
    ) -> anyhow::Result<()> {
        self.log.prepare()?;
        // Read before the end offsets, so that these include every account.
        let is_complete = self.is_log_complete();
        let starts = self.log.start_offsets(OFFSETS_TIMEOUT)?;
        let (ends, now) = (self.log.end_offsets(OFFSETS_TIMEOUT)?, Instant::now());
        self.checkpoints.set_starts(starts);
        if self.checkpoints.clear_if_contradicted(&mut self.view, &ends) {
            self.positions.clear();
        }
        match catch_up {
            // A topic that was re-created may end before the old one.
            Some(catch_up) => catch_up.ends.iter_mut().for_each(|(partition, end)| {
                *end = ends.get(partition).copied().unwrap_or(0).min(*end);
            }),
            None => *catch_up = Some(CatchUp { ends, is_complete, started: now, reported: now }),
        }
        let cut = self.checkpoints.warnings();
        self.status.update(|progress| progress.cut = cut);
        let mut reader = BatchReader::new(self.log.reader(&self.positions)?, self.checkpoints.known(), quarantine)
            .recording(Arc::clone(&self.ring));
        tracing::info!(log = self.log.describe(), "Kafka consumer started successfully");
        self.positions = reader.reader.positions();
        self.status.read(0, 0, self.positions.clone());
        let opened = Instant::now();
        while let Some(catch_up) =
            catch_up.as_mut().filter(|_| self.status.is_catching_up() && !stopping(&self.stopping))
        {
            if self.catch_up(&mut reader, catch_up)?.is_break() {
                reader.restart(self.log.reader(&Positions::new())?);
                self.positions = reader.reader.positions();
            }
        }
        while !stopping(&self.stopping) {
            if self.is_quarantine_current() {
                self.checkpoints.write_if_due(|| (reader.reader.positions(), reader.reader.durable_positions()));
            }
            self.follow_log(&mut reader)?;
            self.apply(reader.read(POLL))?;
            if opened.elapsed() >= REOPEN_AFTER && self.status.stalled_for() >= Some(REOPEN_AFTER) {
                return Err(LogError::Unavailable("a partition brings nothing, opening a new reader".to_owned()).into());
            }
        }
        if !self.status.is_catching_up() && self.is_quarantine_current() {
            self.checkpoints.write_last((reader.reader.positions(), reader.reader.durable_positions()));
        }
        Ok(())
    }

    /// Applies the log up to the end offsets of `catch_up`. Breaks if the checkpoint turns out to belong to another log; the view
    /// is empty then.
    ///
    /// This thread gathers the batches in order while another thread reads and decodes the next ones.
    fn catch_up(&mut self, reader: &mut BatchReader<'_>, catch_up: &mut CatchUp) -> anyhow::Result<ControlFlow<()>> {
        let checked = self.check_catch_up(catch_up)?;
        if checked.is_break() || !self.status.is_catching_up() {
            return Ok(checked);
        }
        let poll = if catch_up.is_complete { POLL } else { BACKLOG_POLL };
        let (ends, stop) = (catch_up.ends.clone(), Arc::clone(&self.stopping));
        std::thread::scope(|scope| {
            let (ahead, batches) = sync_channel(BATCHES_AHEAD);
            let read_all = move || {
                loop {
                    let batch = reader.read(poll);
                    let is_last = batch.failure.is_some() || remaining(&batch.positions, &ends) == 0;
                    // Sending fails if an earlier batch could not be applied.
                    if ahead.send(batch).is_err() || is_last || stopping(&stop) {
                        return;
                    }
                }
            };
            let thread = std::thread::Builder::new().name("account-reader".to_owned());
            thread.spawn_scoped(scope, read_all)?;
            for batch in batches {
                self.apply(batch)?;
                if self.check_catch_up(catch_up)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Applies a batch and sets the positions to its end.
    fn apply(&mut self, batch: Batch) -> anyhow::Result<()> {
        // One clock read for the batch: reading the clock takes as long as decoding an event.
        let now = Instant::now();
        self.checkpoints.add_samples(&batch.samples);
        let is_rebuilding = self.status.is_catching_up();
        for event in &batch.events {
            let has_changed = if is_rebuilding {
                self.view.gather(event);
                true
            } else {
                self.view.apply(event)
            };
            if event.status == AccountStatus::Deleted {
                self.closing.add([event.account_id]);
            }
            if let Some(left_out) = self.lines.allow(now) {
                log_left_out(left_out);
                log_event(event, has_changed);
            }
        }
        if batch.records == 0 {
            log_left_out(self.lines.flush());
        }
        // Before the status: a stream that begins at the new positions must not find older ones in the ring.
        let start = std::mem::replace(&mut self.positions, batch.positions.clone());
        self.ring.push(batch.placed, &start, &self.positions);
        self.status.read(batch.records, batch.poison, batch.positions);
        self.waiters.wake(batch.events.iter().map(|event| event.account_id));
        self.status.update(|progress| progress.trouble = batch.trouble);
        self.store_quarantined(batch.quarantined);
        self.remove_decoded(batch.decoded);
        self.close_accounts()?;
        if let Some(failure) = batch.failure {
            return Err(failure.into());
        }
        if self.status.recovered() {
            tracing::info!("the account view follows the event log again");
        }
        Ok(())
    }

    /// Stores records in quarantine. Records that the database cannot store now are retried with the next batch. No checkpoint is
    /// written meanwhile, so a restart reads them again.
    fn store_quarantined(&mut self, records: Vec<QuarantinedRecord>) {
        let waited = !self.unstored.is_empty();
        // A log that is read again brings the same records again, and one command may name a record once.
        self.unstored.extend(records.into_iter().map(|record| ((record.partition, record.offset), record)));
        while !self.unstored.is_empty() {
            let few: Vec<_> = self.unstored.values().take(quarantine::MAX_STORED_AT_ONCE).cloned().collect();
            let count = few.len();
            if let Err(error) = self.store.quarantine(few) {
                if !waited {
                    tracing::warn!(%error, "cannot store records in quarantine, retrying with the next batch");
                }
                return;
            }
            self.unstored = std::mem::take(&mut self.unstored).into_iter().skip(count).collect();
        }
    }

    /// Removes places from quarantine whose records were decoded. Failures are handled as in
    /// [`store_quarantined`](Self::store_quarantined).
    fn remove_decoded(&mut self, places: Vec<Place>) {
        let waited = !self.decoded.is_empty();
        self.decoded.extend(places);
        while !self.decoded.is_empty() {
            let few: Vec<_> = self.decoded.iter().take(quarantine::MAX_STORED_AT_ONCE).copied().collect();
            if let Err(error) = self.store.remove_quarantined(few.clone()) {
                if !waited {
                    tracing::warn!(%error, "cannot remove decoded records from quarantine, retrying with the next batch");
                }
                return;
            }
            few.iter().for_each(|place| {
                self.decoded.remove(place);
            });
        }
    }

    /// Whether the card database has all that was read for the quarantine.
    fn is_quarantine_current(&self) -> bool {
        self.unstored.is_empty() && self.decoded.is_empty()
    }

    /// Checks the progress of a catch-up. Breaks if the checkpoint belongs to another log; the view is empty then.
    fn check_catch_up(&mut self, catch_up: &mut CatchUp) -> anyhow::Result<ControlFlow<()>> {
        let mut left = remaining(&self.positions, &catch_up.ends);
        if self.checkpoints.clear_if_disproved(&mut self.view, &self.positions, left == 0) {
            return Ok(ControlFlow::Break(()));
        }
        if left == 0 && !catch_up.is_complete && self.is_log_complete() {
            catch_up.ends = self.log.end_offsets(OFFSETS_TIMEOUT)?;
            catch_up.is_complete = true;
            left = remaining(&self.positions, &catch_up.ends);
        }
        if left == 0 {
            self.view.settle();
        }
        let (records, seconds) = (self.status.records(), catch_up.started.elapsed().as_secs_f64());
        if left == 0 && catch_up.is_complete && self.close_checkpointed()? {
            self.status.caught_up();
            self.waiters.wake_ready();
            tracing::info!(records, seconds, "the account view holds every account");
        } else if catch_up.reported.elapsed() >= PROGRESS_INTERVAL {
            catch_up.reported = Instant::now();
            let rate = (records as f64 / seconds) as u64;
            tracing::info!(records, records_per_second = rate, left, "the account view is being rebuilt");
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whether the log has every account: the backlog of the outbox was published, and no resync is open.
    fn is_log_complete(&self) -> bool {
        self.backlog_published.as_ref().is_none_or(|published| published.load(Ordering::Acquire))
            && self.status.log().is_some_and(|log| !log.is_incomplete)
    }

    /// Reads the log from its start if it is not the log that was read until now: its topic was recreated or restored, and the positions
    /// mean other records there. The view stays, because reading a state twice changes nothing.
    fn follow_log(&mut self, reader: &mut BatchReader<'_>) -> Result<(), LogError> {
        let Some(LogState { id, .. }) = self.status.log().filter(|log| !log.id.is_empty()) else { return Ok(()) };
        let is_other = self.log_id.as_ref().is_some_and(|known| *known != id);
        if is_other {
            tracing::warn!("the event log was replaced, reading it from its start");
            self.checkpoints.forget_samples();
            reader.restart(self.log.reader(&Positions::new())?);
            self.positions = reader.reader.positions();
        }
        self.log_id = Some(id);
        Ok(())
    }

    fn close_accounts(&mut self) -> anyhow::Result<()> {
        self.closing.close().context("deleted accounts cannot be closed")
    }

    /// Closes the accounts that are deleted in the checkpoint. Returns whether all deleted accounts are closed, except those that the
    /// database cannot close; otherwise the next call goes on.
    fn close_checkpointed(&mut self) -> anyhow::Result<bool> {
        while self.closing.is_settled() && !stopping(&self.stopping) {
            let Some(deleted) = self.checkpoints.next_deleted(&self.view) else { return Ok(true) };
            self.closing.add(deleted);
            self.close_accounts()?;
        }
        Ok(false)
    }
}

/// Logs the seed's line for an event, and the other one if the event has changed the view.
fn log_event(event: &AccountEvent, has_changed: bool) {
    let (event_type, id, status) = (event.event_type.as_str(), event.account_id, event.status.as_str());
    tracing::info!("Received account event: type={event_type}, account_id={id}, status={status}");
    if has_changed {
        tracing::info!("Updated account cache: account_id={id}, status={status}");
    }
}

fn log_left_out(events: u64) {
    if events > 0 {
        tracing::info!(events, "left out the lines of {events} account events");
    }
}

fn stopping(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Acquire)
}
