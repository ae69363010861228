//! The relay publishes the outbox to the event log, in the order of commit (ARCHITECTURE.md A3, A4).
//!
//! A commit wakes the relay; a slow poll is the fallback. The event log stores the relay's position atomically with the records. So
//! after a crash of either side [`Publisher::position`] tells exactly which events the log has: none is published after a newer
//! one, and none is left out. While the log is away the outbox grows, and requests are not affected (A2).

mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use account_events::Owner;
use event_log::{EventLog, LogError, Publisher};

use self::session::Session;
use crate::lineage::{Reason, SupersededState};
use crate::outbox::relay_status::RelayStatus;
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

/// The back-off after the first failure. It doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The maximum back-off, and the pause between two comparisons while the database is superseded.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

pub(crate) struct Relay {
    pub(crate) outbox: Box<dyn Outbox>,
    pub(crate) signal: OutboxWait,
    pub(crate) log: Arc<dyn EventLog>,
    /// Set while the log belongs to another database, or knows more than this one.
    pub(crate) superseded: SupersededState,
    pub(crate) status: Arc<RelayStatus>,
    /// Set when the writer has ended, so that the outbox gets no more events.
    pub(crate) stopping: Arc<AtomicBool>,
    /// Events that were appended to the log and not committed there yet.
    pub(crate) appended: usize,
    /// The sequence of the last event at the start, once it is known.
    pub(crate) backlog: Option<u64>,
    /// Set once the log has every event up to [`backlog`](Relay::backlog).
    pub(crate) backlog_published: Arc<AtomicBool>,
    /// Why the database is superseded, if the log last said so.
    pub(crate) superseded_by: Option<Reason>,
}

/// Why publishing ended without a failure.
enum Ended {
    /// The service stops and the outbox is empty.
    Stopping,
    /// Another instance holds the lease.
    LeaseLost,
    /// The log belongs to another database, or knows more than this one.
    Superseded,
}

impl Relay {
    /// Publishes until the service stops, and then the rest of the outbox unless publishing fails.
    pub(crate) fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let outcome = self.publish_until_failure(&mut pause);
            if let Err(error) = &outcome {
                let waiting = self.outbox.removed().and_then(|removed| self.outbox.waiting(removed));
                self.status.failed(error, waiting.ok());
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
        if self.backlog.is_none() {
            self.backlog = Some(self.outbox.last()?);
        }
        self.log.prepare()?;
        loop {
            // Read before the outbox, so that the last commits of the writer are seen.
            let stopping = self.stopping();
            if self.outbox.acquire_lease()? {
                match self.publish_while_permitted(pause) {
                    Ok(Ended::Stopping) => return Ok(()),
                    Ok(Ended::LeaseLost) => tracing::info!("another instance publishes now"),
                    Ok(Ended::Superseded) if stopping => return Ok(()),
                    Ok(Ended::Superseded) => {
                        self.check_backlog()?;
                        thread::park_timeout(LONGEST_PAUSE);
                        continue;
                    }
                    // The other instance has fenced this one. With the lease here, being fenced is an error.
                    Err(RelayError::Log(LogError::Fenced(_))) if !self.outbox.acquire_lease()? => {
                        tracing::info!("another instance publishes now");
                    }
                    Err(error) => return Err(error),
                }
            }
            // The other instance publishes what this one commits.
            self.check_backlog()?;
            self.superseded.set(self.outbox.superseded()?.as_deref());
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
        let Some(mut session) = self.open_session()? else { return Ok(Ended::Superseded) };
        let position = session.publisher.position().unwrap_or(0);
        let outcome = self.outbox.remove_published(position).map_err(RelayError::from);
        let outcome = outcome.and_then(|()| self.publish_behind(position, &mut session, pause));
        if outcome.is_err() && session.publisher.commit().is_ok() {
            // The publisher is still usable: the log has now committed the appended batches.
            self.record_committed(session.publisher.as_ref());
            // An error leaves the removal to the next session.
            let _ = self.outbox.remove_published(session.publisher.position().unwrap_or(0));
        }
        self.outbox.session_ended();
        outcome
    }

    fn publish_behind(
        &mut self,
        mut position: u64,
        session: &mut Session,
        pause: &mut Duration,
    ) -> Result<Ended, RelayError> {
        let mut is_refreshed = false;
        loop {
            let stopping = self.stopping();
            if !self.outbox.acquire_lease()? {
                return Ok(Ended::LeaseLost);
            }
            if !stopping && let Some(request) = self.outbox.resync_requested()? {
                position = self.resync(session, position, request)?;
                continue;
            }
            if self.backlog_is_open() && self.backlog <= Some(position) {
                session.publisher.commit()?;
                self.outbox.remove_published(position)?;
                self.backlog_published.store(true, Ordering::Release);
            }
            match self.publish_next(session, position, NO_END)? {
                Some((count, reached)) => {
                    position = reached;
                    // A full batch means that more events wait.
                    if count < MAX_BATCH && !stopping {
                        thread::park_timeout(session.publisher.gathering_time(count));
                    }
                }
                None => match session.publisher.commit_due() {
                    Some(due) if due.is_zero() || stopping => {
                        session.publisher.commit()?;
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
            if self.record_committed(session.publisher.as_ref()) {
                *pause = FIRST_PAUSE;
                // Also under load, between two transactions.
                if !stopping {
                    session.publisher.check()?;
                }
            }
        }
    }

    /// Publishes the state of every account, and returns the position reached.
    ///
    /// A page is a snapshot. Events committed before the snapshot are published before the page, and later events after it. So no
    /// account's version goes back (A3), wherever the resync is interrupted. An interrupted request stays open and starts again.
    fn resync(&mut self, session: &mut Session, mut position: u64, request: ResyncRequest) -> Result<u64, RelayError> {
        tracing::info!("publishing the state of every account");
        session.set_owner(Owner { is_resync_open: true, ..session.owner.clone() });
        let (mut accounts, mut last_account) = (0, 0);
        loop {
            let page = self.outbox.accounts_after(last_account, MAX_PAGE)?;
            if page.records.is_empty() {
                break;
            }
            loop {
                if self.stopping() || !self.outbox.acquire_lease()? {
                    tracing::info!(
                        accounts,
                        "publishing the state of every account was interrupted, and starts again later"
                    );
                    return Ok(position);
                }
                let Some((_, reached)) = self.publish_next(session, position, page.head)? else { break };
                position = reached;
            }
            if page.head > position {
                // The events in between have left the outbox.
                position = page.head;
                session.set_owner(Owner { last_event: None, ..session.owner.clone() });
            }
            session.publisher.append(&page.records, position)?;
            self.record_committed(session.publisher.as_ref());
            accounts += page.records.len();
            last_account = page.last;
        }
        session.set_owner(Owner { is_resync_open: false, ..session.owner.clone() });
        session.publisher.publish(&[], position)?;
        self.record_committed(session.publisher.as_ref());
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
        if self.backlog_is_open() && Some(self.outbox.removed()?) >= self.backlog {
            self.backlog_published.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Publishes one batch of events up to `up_to`. Returns the number of events and the position reached, or `None` if the outbox
    /// has no more.
    fn publish_next(
        &mut self,
        session: &mut Session,
        position: u64,
        up_to: u64,
    ) -> Result<Option<(usize, u64)>, RelayError> {
        let account_sequence_high = self.outbox.account_sequence_high();
        let Some(next) = self.outbox.read(position, up_to, MAX_BATCH)? else { return Ok(None) };
        let (count, reached, last_event) = (next.records.len(), next.position, Some(next.last_event));
        session.set_owner(Owner { account_sequence_high, last_event, ..session.owner.clone() });
        session.publisher.append(next.records, reached)?;
        self.appended += count;
        // Events that the log has committed leave the outbox now, the others after their commit.
        self.outbox.remove_published(session.publisher.position().unwrap_or(0))?;
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

#[cfg(test)]
mod tests;
