//! The relay publishes the outbox to the event log, in the order of commit (ARCHITECTURE.md A3, A4).
//!
//! A commit wakes the relay; a slow poll is the fallback. The event log stores the relay's position atomically with the records. So
//! after a crash of either side [`Publisher::position`] tells exactly which events the log has: none is published after a newer
//! one, and none is left out. While the log is away the outbox grows, and requests are not affected (A2).

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use event_log::{EventLog, LogError, Publisher};
use parking_lot::Mutex;

use crate::outbox::{NO_END, Outbox, OutboxWait, RelayError, ResyncRequest};

/// The approximate number of events in a batch: the events of one transaction stay together. An event takes about 1 KiB.
const MAX_BATCH: usize = 4_000;

/// Accounts in one page of a resync. New events wait while a page is published.
const MAX_PAGE: usize = 1_000;

/// The interval of the fallback poll, which also renews the lease.
const FALLBACK_POLL: Duration = Duration::from_secs(1);

/// How often an instance that does not publish asks for the lease. A failover takes the lease's time, this interval and the
/// opening of a publisher: five seconds altogether.
const STANDBY_POLL: Duration = Duration::from_millis(250);

/// How long the lease is renewed while a publisher is opened. Far from the brokers opening takes longer than the lease, and
/// instances would take the lease from each other. The bound lets another instance try.
const OPENING_TIME: Duration = Duration::from_secs(5);

/// The back-off after the first failure. It doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest back-off: the longest time between the return of the log and the next attempt.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

pub(crate) struct Relay {
    pub(crate) outbox: Box<dyn Outbox>,
    pub(crate) signal: OutboxWait,
    pub(crate) log: Arc<dyn EventLog>,
    /// The publisher's name in the log, unique for each database.
    pub(crate) publisher_name: String,
    pub(crate) status: Arc<RelayStatus>,
    /// Set when the writer has ended, so that the outbox gets no more events.
    pub(crate) stopping: Arc<AtomicBool>,
    /// Events that were appended to the log and not committed there yet.
    pub(crate) appended: usize,
    /// The sequence of the last event at the start, once it is known.
    pub(crate) backlog: Option<u64>,
    /// Set once the log has every event up to [`backlog`](Relay::backlog).
    pub(crate) backlog_published: Arc<AtomicBool>,
}

/// Why publishing ended without a failure.
enum Ended {
    /// The service stops and the outbox is empty.
    Stopping,
    /// Another instance holds the lease.
    Superseded,
}

impl Relay {
    /// Publishes until the service stops and the outbox is empty or the log is away.
    pub(crate) fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let outcome = self.publish_until_failure(&mut pause);
            if let Err(error) = &outcome {
                self.status.failed(error, self.outbox.waiting().ok());
            }
            if outcome.is_ok() || self.stopping() {
                // Without the release the lease expires.
                let _ = self.outbox.release();
                return;
            }
            // The end of the service cuts the pause short; a commit does not.
            thread::park_timeout(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn publish_until_failure(&mut self, pause: &mut Duration) -> Result<(), RelayError> {
        self.check_backlog()?;
        self.log.prepare()?;
        loop {
            // Read before the outbox, so that the last commits of the writer are seen.
            let stopping = self.stopping();
            if self.outbox.may_publish()? {
                match self.publish_while_permitted(pause) {
                    Ok(Ended::Stopping) => return Ok(()),
                    Ok(Ended::Superseded) => tracing::info!("another instance publishes now"),
                    // The other instance has fenced this one. With the lease here, being fenced is an error.
                    Err(RelayError::Log(LogError::Fenced(_))) if !self.outbox.may_publish()? => {
                        tracing::info!("another instance publishes now");
                    }
                    Err(error) => return Err(error),
                }
            }
            // The other instance publishes what this one commits.
            self.check_backlog()?;
            self.status.succeeded();
            *pause = FIRST_PAUSE;
            if stopping {
                return Ok(());
            }
            // Commits do not wake an instance that does not publish.
            thread::park_timeout(STANDBY_POLL);
        }
    }

    fn publish_while_permitted(&mut self, pause: &mut Duration) -> Result<Ended, RelayError> {
        self.appended = 0;
        let mut publisher = self.open_publisher()?;
        let position = publisher.position().unwrap_or(0);
        // The topic was re-created, restored to an older copy, or replaced.
        let lacks_events = position < self.outbox.removed()?;
        if lacks_events || publisher.may_lose_records() {
            let lacks = if lacks_events { "lacks" } else { "may lack" };
            tracing::warn!(
                "the event log {lacks} events that were published: it will be told the state of every account"
            );
            self.outbox.request_resync()?;
        }
        self.outbox.remove_published(position)?;
        let outcome = self.publish_behind(position, publisher.as_mut(), pause);
        if outcome.is_err() && publisher.commit().is_ok() {
            // These batches were committed before the log went away.
            self.record_committed(publisher.as_ref());
            self.outbox.remove_published(publisher.position().unwrap_or(0))?;
        }
        outcome
    }

    /// Opens a publisher, which fences the one before it, and renews the lease meanwhile.
    fn open_publisher(&mut self) -> Result<Box<dyn Publisher>, RelayError> {
        let Relay { log, publisher_name, outbox, .. } = self;
        let began = Instant::now();
        thread::scope(|scope| {
            // The channel closes when the thread ends. An unpark just before this thread parks elsewhere would be lost.
            let (open, closed) = sync_channel::<()>(0);
            let opening = thread::Builder::new().name("account-relay-open".to_owned()).spawn_scoped(scope, move || {
                let _open = open;
                log.publisher(publisher_name)
            });
            let opening =
                opening.map_err(|error| LogError::Unavailable(format!("no thread for a publisher: {error}")))?;
            while began.elapsed() < OPENING_TIME && closed.recv_timeout(STANDBY_POLL) == Err(RecvTimeoutError::Timeout)
            {
                // Renews the lease. The answer is checked before the first batch.
                let _ = outbox.may_publish();
            }
            Ok(opening.join().unwrap_or_else(|panic| resume_unwind(panic))?)
        })
    }

    fn publish_behind(
        &mut self,
        mut position: u64,
        publisher: &mut dyn Publisher,
        pause: &mut Duration,
    ) -> Result<Ended, RelayError> {
        let mut is_refreshed = false;
        loop {
            let stopping = self.stopping();
            if !self.outbox.may_publish()? {
                return Ok(Ended::Superseded);
            }
            if !stopping && let Some(request) = self.outbox.resync_requested()? {
                position = self.resync(publisher, position, request)?;
                continue;
            }
            if self.backlog_is_open() && self.backlog <= Some(position) {
                publisher.commit()?;
                self.outbox.remove_published(position)?;
                self.backlog_published.store(true, Ordering::Release);
            }
            match self.publish_next(publisher, position, NO_END)? {
                Some((count, reached)) => {
                    position = reached;
                    // A full batch means that more events wait.
                    if count < MAX_BATCH && !stopping {
                        thread::park_timeout(publisher.gathering_time(count));
                    }
                }
                None => match publisher.commit_due() {
                    Some(due) if due.is_zero() || stopping => {
                        publisher.commit()?;
                        self.outbox.remove_published(position)?;
                    }
                    Some(due) => self.signal.wait(due),
                    None if stopping && is_refreshed => return Ok(Ended::Stopping),
                    None if stopping => {
                        self.outbox.refresh();
                        is_refreshed = true;
                    }
                    None => {
                        self.outbox.tidy()?;
                        self.signal.wait(FALLBACK_POLL);
                    }
                },
            }
            if self.record_committed(publisher) {
                *pause = FIRST_PAUSE;
                // Also under load, between two transactions.
                if !stopping {
                    publisher.check()?;
                }
            }
        }
    }

    /// Publishes the state of every account, and returns the position reached.
    ///
    /// A page is a snapshot. Events committed before the snapshot are published before the page, and later events after it. So no
    /// account's version goes back (A3), wherever the resync is interrupted. An interrupted request stays open and starts again.
    fn resync(
        &mut self,
        publisher: &mut dyn Publisher,
        mut position: u64,
        request: ResyncRequest,
    ) -> Result<u64, RelayError> {
        tracing::info!("publishing the state of every account");
        let (mut accounts, mut last_account) = (0, 0);
        loop {
            let page = self.outbox.accounts_after(last_account, MAX_PAGE)?;
            if page.records.is_empty() {
                break;
            }
            loop {
                if self.stopping() || !self.outbox.may_publish()? {
                    tracing::info!(
                        accounts,
                        "publishing the state of every account was cut short, and will begin anew"
                    );
                    return Ok(position);
                }
                let Some((_, reached)) = self.publish_next(publisher, position, page.head)? else { break };
                position = reached;
            }
            position = position.max(page.head);
            publisher.append(&page.records, position)?;
            self.record_committed(publisher);
            accounts += page.records.len();
            last_account = page.last;
        }
        publisher.commit()?;
        self.record_committed(publisher);
        self.outbox.remove_published(position)?;
        self.outbox.resync_done(request)?;
        tracing::info!(accounts, "published the state of every account");
        Ok(position)
    }

    /// Whether the log may still lack events that the outbox held at the start.
    fn backlog_is_open(&self) -> bool {
        !self.backlog_published.load(Ordering::Acquire)
    }

    /// Checks whether the backlog needs no publishing: the outbox was empty, or another instance published it.
    fn check_backlog(&mut self) -> Result<(), RelayError> {
        if self.backlog_is_open() {
            let backlog = match self.backlog {
                Some(backlog) => backlog,
                None => *self.backlog.insert(self.outbox.last()?),
            };
            if self.outbox.removed()? >= backlog {
                self.backlog_published.store(true, Ordering::Release);
            }
        }
        Ok(())
    }

    /// Publishes one batch of events up to `up_to`. Returns the number of events and the position reached, or `None` if the outbox
    /// has no more.
    fn publish_next(
        &mut self,
        publisher: &mut dyn Publisher,
        position: u64,
        up_to: u64,
    ) -> Result<Option<(usize, u64)>, RelayError> {
        let (records, reached) = self.outbox.read(position, up_to, MAX_BATCH)?;
        if records.is_empty() {
            return Ok(None);
        }
        publisher.append(records, reached)?;
        let count = records.len();
        self.appended += count;
        // Events that the log has committed leave the outbox now, the others after their commit.
        self.outbox.remove_published(publisher.position().unwrap_or(0))?;
        Ok(Some((count, reached)))
    }

    /// Counts the appended events once the log has committed all of them, and returns whether it has.
    fn record_committed(&mut self, publisher: &dyn Publisher) -> bool {
        let is_committed = publisher.commit_due().is_none();
        if is_committed {
            self.status.published(std::mem::take(&mut self.appended));
            self.status.succeeded();
        }
        is_committed
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// The state of the relay, for `/readyz` and the log.
#[derive(Debug, Default)]
pub(crate) struct RelayStatus {
    failure: Mutex<Option<String>>,
    /// Events in the outbox after the last failure; 0 while publishing works.
    waiting: AtomicU64,
    published: AtomicU64,
}

impl RelayStatus {
    /// Why publishing fails now, if it does.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Events that wait for the log, as of the last attempt.
    pub(crate) fn waiting_count(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Events published since the start.
    pub(crate) fn published_count(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    fn published(&self, count: usize) {
        self.published.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Records a failure, and logs the first one.
    fn failed(&self, error: &RelayError, waiting: Option<u64>) {
        self.waiting.store(waiting.unwrap_or_default(), Ordering::Relaxed);
        if self.failure.lock().replace(error.to_string()).is_none() {
            tracing::warn!(%error, "events wait in the outbox until the event log takes them");
        }
    }

    fn succeeded(&self) {
        self.waiting.store(0, Ordering::Relaxed);
        if self.failure.lock().take().is_some() {
            tracing::info!("the event log takes events again");
        }
    }
}

#[cfg(test)]
mod tests;
