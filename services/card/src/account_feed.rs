//! The feed: event log to account view. Every instance reads all partitions for itself, as a member of no group, because
//! each needs every account (design.md, hole 4).
//!
//! It first fixes where the log ends, and the instance is ready once the view has got there (C3). When the log is away the
//! view stays as it is, and the feed goes on from where it was (C5). A record that tells of nothing goes to quarantine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use account_events::AccountEvent;
use event_log::{EventLog, LogError, Positions, Reader, RecordRef};
use process::SampledLog;

use crate::account_view::{Applied, ViewWriter};
use crate::quarantine::QuarantinedRecord;
use crate::store::Store;
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

pub(crate) struct AccountFeed {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) view: ViewWriter,
    pub(crate) store: Store,
    pub(crate) status: Arc<ViewStatus>,
    pub(crate) stopping: Arc<AtomicBool>,
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
        let mut positions = Positions::new();
        let mut rebuild = None;
        while !stopping(&self.stopping) {
            let Err(error) = self.feed_until_failure(&mut positions, &mut rebuild) else { return };
            if self.status.failed(error.to_string()) {
                tracing::warn!(%error, "the account view stays as it is until the event log can be read");
            }
            std::thread::park_timeout(PAUSE);
        }
    }

    fn feed_until_failure(&mut self, positions: &mut Positions, rebuild: &mut Option<Rebuild>) -> Result<(), LogError> {
        self.log.prepare()?;
        if rebuild.is_none() {
            let (ends, now) = (self.log.end_offsets(END_OFFSETS_TIMEOUT)?, Instant::now());
            *rebuild = Some(Rebuild { ends, started: now, reported: now });
        }
        let mut reader = self.log.reader(positions)?;
        tracing::info!(log = self.log.describe(), "Kafka consumer started successfully");
        let mut lines = EventLines::default();
        while !stopping(&self.stopping) {
            *positions = reader.positions();
            if let Some(rebuild) = rebuild.as_mut().filter(|_| self.status.is_catching_up()) {
                self.check_rebuild(rebuild, positions);
            }
            self.feed_next(reader.as_mut(), &mut lines)?;
            if self.status.recovered() {
                tracing::info!("the account view follows the event log again");
            }
        }
        Ok(())
    }

    /// Takes what has come into the view.
    fn feed_next(&mut self, reader: &mut dyn Reader, lines: &mut EventLines) -> Result<(), LogError> {
        let mut poison = Vec::new();
        let view = &mut self.view;
        let records = reader.poll(POLL, &mut |record| match AccountEvent::decode(record) {
            Ok(event) => lines.applied(&event, view.apply(&event)),
            Err(reason) => {
                lines.quarantined(record, &reason);
                poison.push(QuarantinedRecord::new(record, reason));
            }
        })?;
        if records == 0 {
            lines.quiet();
        }
        self.status.read(records, poison.len(), reader.positions());
        if !poison.is_empty()
            && let Err(error) = self.store.quarantine(poison)
        {
            tracing::warn!(%error, "records in quarantine could not be kept; they are counted, and still in the log");
        }
        Ok(())
    }

    fn check_rebuild(&self, rebuild: &mut Rebuild, positions: &Positions) {
        let records = self.status.records();
        let seconds = rebuild.started.elapsed().as_secs_f64();
        let left = remaining(positions, &rebuild.ends);
        if left == 0 {
            self.status.caught_up();
            tracing::info!(records, seconds, "the account view holds every account");
        } else if rebuild.reported.elapsed() >= PROGRESS_INTERVAL {
            rebuild.reported = Instant::now();
            let rate = (records as f64 / seconds) as u64;
            tracing::info!(records, records_per_second = rate, left, "the account view is being rebuilt");
        }
    }
}

/// Measures the age of the view: what the log had a moment ago, the view has or has not.
pub(crate) fn watch(log: &dyn EventLog, status: &ViewStatus, stop: &AtomicBool) {
    while !stopping(stop) {
        let asked = Instant::now();
        // A log that does not answer leaves the view ageing, which is all there is to say of it here.
        if let Ok(ends) = log.end_offsets(END_OFFSETS_TIMEOUT) {
            status.compare(&ends, asked);
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
    fn applied(&mut self, event: &AccountEvent, applied: Applied) {
        let Some(left_out) = self.events.allow(Instant::now()) else { return };
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
    }

    fn quarantined(&mut self, record: RecordRef<'_>, reason: &account_events::Unintelligible) {
        let Some(left_out) = self.poison.allow(Instant::now()) else { return };
        let (partition, offset, code) = (record.partition, record.offset, reason.code());
        tracing::warn!(partition, offset, code, %reason, left_out, "a record went to quarantine");
    }
}

fn say_left_out(events: u64) {
    if events > 0 {
        tracing::info!(events, "left out the lines of {events} account events");
    }
}
