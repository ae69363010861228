//! The relay: outbox to event log, in the order of commit (ARCHITECTURE.md A3, A4).
//!
//! ```text
//! commit ──signal──▶ read behind the position ──▶ publish, position with it ──▶ tell the writer what may go
//! ```
//!
//! It is woken by the commit; a slow poll is the fallback. The event log keeps the relay's position in the same atomic
//! step as the records, so after a crash on either side [`Publisher::position`] tells exactly what the log has: nothing is
//! published again behind something newer, and nothing is left out. While the log is away the outbox grows, and no
//! request notices (A2).

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use event_log::{EventLog, LogError, Publisher};

use crate::outbox::{NO_END, Outbox, OutboxWait, RelayError, ResyncRequest};

/// Events in one batch, about (what one transaction has committed stays together): enough to keep a log busy, few enough to hold
/// in memory (about 1 KiB each).
const MAX_BATCH: usize = 4_000;

/// Accounts in one page of all of them. New events wait for it.
const MAX_PAGE: usize = 1_000;

/// How long without a signal until the outbox is looked at all the same, and a lease on it renewed.
const FALLBACK_POLL: Duration = Duration::from_secs(1);

/// How often an instance that does not publish asks whether it should. It is a part of how long publishing takes to move
/// after an instance died: the lease, this, and opening a publisher; five seconds are allowed for all.
const STANDBY_POLL: Duration = Duration::from_millis(250);

/// How long the lease is renewed while a publisher is opened. Far from the brokers that takes longer than a lease lasts, and
/// instances would take it from each other for ever. One that gets nowhere gives way to the next.
const OPENING_TIME: Duration = Duration::from_secs(5);

/// The pause after a first failure; it doubles with each further one, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause between attempts: so long at most after the log is back does publishing go on.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

pub(crate) struct Relay {
    pub(crate) outbox: Box<dyn Outbox>,
    pub(crate) signal: OutboxWait,
    pub(crate) log: Arc<dyn EventLog>,
    /// The publisher's name in the log: one a database.
    pub(crate) publisher_name: String,
    pub(crate) status: Arc<RelayStatus>,
    /// Set when the writer has ended: what is in the outbox then is the last there will be.
    pub(crate) stopping: Arc<AtomicBool>,
    /// Events that were appended to the log and are not certain yet.
    pub(crate) appended: usize,
    /// The last event that the outbox held at the start, once that is known.
    pub(crate) backlog: Option<u64>,
    /// Set once the log has everything up to there.
    pub(crate) backlog_published: Arc<AtomicBool>,
}

/// How publishing came to an end without a failure.
enum Ended {
    /// The outbox is empty, and nothing more is committed.
    Stopping,
    /// It is another instance's turn.
    Superseded,
}

impl Relay {
    /// Publishes until it is told to stop and the outbox is empty, or the log is away.
    pub(crate) fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let outcome = self.publish_until_failure(&mut pause);
            if let Err(error) = &outcome {
                self.status.failed(error, self.outbox.waiting().ok());
            }
            if outcome.is_ok() || self.stopping() {
                // If it fails, the lease runs out by itself.
                let _ = self.outbox.release();
                return;
            }
            // A commit does not cut it short; the end of the service does.
            thread::park_timeout(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn publish_until_failure(&mut self, pause: &mut Duration) -> Result<(), RelayError> {
        self.note_backlog_published()?;
        self.log.prepare()?;
        loop {
            // Read before the outbox is: what was committed before the writer ended is then seen.
            let stopping = self.stopping();
            if self.outbox.may_publish()? {
                match self.publish_while_permitted(pause) {
                    Ok(Ended::Stopping) => return Ok(()),
                    Ok(Ended::Superseded) => tracing::info!("another instance publishes now"),
                    // So it does, and has fenced this one off. If it is this one's turn nevertheless, something is wrong.
                    Err(RelayError::Log(LogError::Fenced(_))) if !self.outbox.may_publish()? => {
                        tracing::info!("another instance publishes now");
                    }
                    Err(error) => return Err(error),
                }
            }
            // It sees to what this one commits.
            self.note_backlog_published()?;
            self.status.succeeded();
            *pause = FIRST_PAUSE;
            if stopping {
                return Ok(());
            }
            // Not woken by commits, which are the other one's business.
            thread::park_timeout(STANDBY_POLL);
        }
    }

    fn publish_while_permitted(&mut self, pause: &mut Duration) -> Result<Ended, RelayError> {
        self.appended = 0;
        let mut publisher = self.open_publisher()?;
        let position = publisher.position().unwrap_or(0);
        // The topic may have been made anew, or put back to an older copy, or it is another one.
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
            // What the log had taken before it went away.
            self.note_certain(publisher.as_ref());
            self.outbox.remove_published(publisher.position().unwrap_or(0))?;
        }
        outcome
    }

    /// Opens a publisher, which fences whoever published before, and stays the one to publish meanwhile.
    fn open_publisher(&mut self) -> Result<Box<dyn Publisher>, RelayError> {
        let Relay { log, publisher_name, outbox, .. } = self;
        let began = Instant::now();
        thread::scope(|scope| {
            // The channel closes when the thread is done. A wake-up would be lost if it came just before the thread ends.
            let (open, closed) = sync_channel::<()>(0);
            let opening = thread::Builder::new().name("account-relay-open".to_owned()).spawn_scoped(scope, move || {
                let _open = open;
                log.publisher(publisher_name)
            });
            let opening =
                opening.map_err(|error| LogError::Unavailable(format!("no thread for a publisher: {error}")))?;
            while began.elapsed() < OPENING_TIME && closed.recv_timeout(STANDBY_POLL) == Err(RecvTimeoutError::Timeout)
            {
                // Renews the lease. Whether it was granted is asked again before the first batch.
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
        let mut has_looked_again = false;
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
                    // A full batch is a backlog, and waits for nothing.
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
                    None if stopping && has_looked_again => return Ok(Ended::Stopping),
                    None if stopping => {
                        self.outbox.look_again();
                        has_looked_again = true;
                    }
                    None => {
                        self.outbox.tidy()?;
                        publisher.check()?;
                        self.signal.wait(FALLBACK_POLL);
                    }
                },
            }
            if self.note_certain(publisher) {
                *pause = FIRST_PAUSE;
            }
        }
    }

    /// Tells the log the state of every account, and returns the position reached.
    ///
    /// A page is of one moment. What was committed before that moment is published before the page, and what is committed
    /// after it is published behind the page. So no account's version goes back (A3), wherever this is cut short and
    /// whoever goes on, and new events wait for a page at most. Whoever is interrupted leaves the request standing, and it is met anew.
    fn resync(
        &mut self,
        publisher: &mut dyn Publisher,
        mut position: u64,
        request: ResyncRequest,
    ) -> Result<u64, RelayError> {
        tracing::info!("publishing the state of every account");
        let (mut accounts, mut behind) = (0, 0);
        loop {
            let page = self.outbox.accounts_after(behind, MAX_PAGE)?;
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
            self.note_certain(publisher);
            accounts += page.records.len();
            behind = page.last;
        }
        publisher.commit()?;
        self.note_certain(publisher);
        self.outbox.remove_published(position)?;
        self.outbox.resync_done(request)?;
        tracing::info!(accounts, "published the state of every account");
        Ok(position)
    }

    /// Whether the log may still lack events that the outbox held at the start.
    fn backlog_is_open(&self) -> bool {
        !self.backlog_published.load(Ordering::Acquire)
    }

    /// Takes note of a backlog that this instance need not publish: the outbox was empty, or another instance has published it.
    fn note_backlog_published(&mut self) -> Result<(), RelayError> {
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

    /// Publishes one batch of events up to `up_to`, and returns how many they are and the position they reach; `None` if the
    /// outbox has no more.
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
        // What is certain may go; the rest follows with its commit.
        self.outbox.remove_published(publisher.position().unwrap_or(0))?;
        Ok(Some((count, reached)))
    }

    /// Whether all that was appended is certain: only then does it count, for what is not may still fail.
    fn note_certain(&mut self, publisher: &dyn Publisher) -> bool {
        let is_certain = publisher.commit_due().is_none();
        if is_certain {
            self.status.published(std::mem::take(&mut self.appended));
            self.status.succeeded();
        }
        is_certain
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// How the relay is doing, for `/readyz` and the log.
#[derive(Debug, Default)]
pub(crate) struct RelayStatus {
    failure: Mutex<Option<String>>,
    /// Events in the outbox when that was last counted, which is after a failure.
    waiting: AtomicU64,
    published: AtomicU64,
}

impl RelayStatus {
    /// Why nothing is published now, if so.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Events that wait for the log to come back, as of the last attempt.
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

    /// Logs the first failure of a row, not each.
    fn failed(&self, error: &RelayError, waiting: Option<u64>) {
        self.waiting.store(waiting.unwrap_or_default(), Ordering::Relaxed);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.replace(error.to_string()).is_none() {
            tracing::warn!(%error, "events wait in the outbox until the event log takes them");
        }
    }

    fn succeeded(&self) {
        self.waiting.store(0, Ordering::Relaxed);
        if self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            tracing::info!("the event log takes events again");
        }
    }
}

#[cfg(test)]
mod tests;
