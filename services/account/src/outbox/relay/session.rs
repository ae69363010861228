//! How the relay opens a publisher: the database is compared with the log before the publisher fences the others, and again after that
//! (docs/decisions/0017).

use std::mem::discriminant;
use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use account_events::{Owner, PUBLISHER};
use event_log::{LogError, Publisher};

use super::{Relay, STANDBY_POLL};
use crate::lineage::{Lineage, Reason, Standing, random_id};
use crate::outbox::RelayError;

/// How long the lease is renewed while a publisher is opened. Far from the brokers opening takes longer than the lease, and
/// instances would take the lease from each other. The bound lets another instance try.
const OPENING_TIME: Duration = Duration::from_secs(5);

/// How long the log may take to return what publishers have committed.
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(5);

/// The session of an open publisher, and the owner record that its commits store.
pub(super) struct Session {
    pub(super) publisher: Box<dyn Publisher>,
    pub(super) owner: Owner,
}

impl Session {
    /// Stores `owner` with the next commit.
    pub(super) fn set_owner(&mut self, owner: Owner) {
        if self.owner != owner {
            self.publisher.set_note(owner.to_note());
            self.owner = owner;
        }
    }
}

impl Relay {
    /// Opens a publisher in a new session, which the log confirms, if the database is the one whose events the log has. Returns `None`
    /// if the database is superseded.
    pub(super) fn open_session(&mut self) -> Result<Option<Session>, RelayError> {
        // Compared before anyone is fenced: a database that does not belong to the topic must not stop the one that does.
        let committed = self.log.committed(PUBLISHER, COMMITTED_TIMEOUT)?;
        let (position, note) = committed.map_or((None, String::new()), |found| (Some(found.position), found.note));
        if self.compare(Owner::from_note(&note).as_ref(), position)?.is_none() {
            return Ok(None);
        }
        let session_id = random_id();
        self.outbox.add_session(&session_id)?;
        let publisher = self.open_publisher()?;
        // Compared again, now that nobody else can publish.
        let previous = Owner::from_note(publisher.note());
        let Some((lineage, standing)) = self.compare(previous.as_ref(), publisher.position())? else { return Ok(None) };
        let (lacks_events, may_lack_events) = (standing == Standing::LogLacksEvents, publisher.may_lose_records());
        let was_open = previous.as_ref().is_some_and(|owner| owner.is_resync_open);
        // The topic of an earlier owner, unless it was recreated, restored to an older copy, or replaced.
        let position = publisher.position().unwrap_or(0);
        let has_last_event = |owner: &&Owner| lineage.has_last_event(owner, position) == Some(true);
        let last_event = previous.as_ref().filter(has_last_event).and_then(|owner| owner.last_event);
        let log_id = previous.filter(|_| !lacks_events).map_or_else(random_id, |owner| owner.log_id);
        if lacks_events || may_lack_events {
            let lacks = if lacks_events { "lacks" } else { "may lack" };
            tracing::warn!("the event log {lacks} events that were published, publishing the state of every account");
        }
        let is_resync_open = lacks_events || may_lack_events || was_open;
        if is_resync_open {
            self.outbox.request_resync()?;
        }
        let owner = Owner {
            database_id: lineage.database_id,
            session: session_id,
            account_sequence_high: self.outbox.account_sequence_high(),
            number_key: lineage.number_key,
            log_id,
            is_resync_open,
            last_event,
        };
        let mut session = Session { publisher, owner };
        session.publisher.set_note(session.owner.to_note());
        session.publisher.publish(&[], position)?;
        self.outbox.session_confirmed()?;
        Ok(Some(session))
    }

    /// Compares the database with the log. Returns `None` if the database is superseded, and closes it for writes.
    fn compare(
        &mut self,
        owner: Option<&Owner>,
        position: Option<u64>,
    ) -> Result<Option<(Lineage, Standing)>, RelayError> {
        let lineage = self.outbox.lineage(owner, position.unwrap_or(0))?;
        let standing = lineage.compare(owner, position);
        let Standing::Superseded(reason) = standing else {
            if self.superseded.set(None) {
                tracing::info!("this account database takes writes again");
                self.outbox.set_superseded(None)?;
            }
            self.superseded_by = None;
            return Ok(Some((lineage, standing)));
        };
        // The log may move on meanwhile; one line is enough.
        let is_known = self.superseded_by.as_ref().is_some_and(|known| discriminant(known) == discriminant(&reason));
        if !is_known {
            // An older copy shares its events up to the anchor with the database that published them.
            let (shared, at_most) = match reason {
                Reason::Restored { anchor, .. } => (anchor, ""),
                // Nobody knows how many events are shared.
                Reason::Diverged { .. } => (0, "at most "),
                _ => (lineage.removed, ""),
            };
            let stranded = self.outbox.waiting(shared);
            let text = match &stranded {
                Ok(count) => format!("{reason}; acknowledged events that are in this database only: {at_most}{count}"),
                Err(_) => reason.to_string(),
            };
            // No failure keeps the database open for writes.
            self.superseded.set(Some(&text));
            stranded?;
            tracing::error!(reason = text, "this account database is superseded and takes no writes");
            self.outbox.set_superseded(Some(&text))?;
            self.superseded_by = Some(reason);
        }
        Ok(None)
    }

    /// Opens a publisher, which fences the one before it, and renews the lease meanwhile.
    pub(super) fn open_publisher(&mut self) -> Result<Box<dyn Publisher>, RelayError> {
        let Relay { log, outbox, .. } = self;
        let began = Instant::now();
        thread::scope(|scope| {
            // The channel closes when the thread ends. An unpark just before this thread parks elsewhere would be lost.
            let (open, closed) = sync_channel::<()>(0);
            let opening = thread::Builder::new().name("account-relay-open".to_owned()).spawn_scoped(scope, move || {
                let _open = open;
                log.publisher(PUBLISHER)
            });
            let opening =
                opening.map_err(|error| LogError::Unavailable(format!("no thread for a publisher: {error}")))?;
            while began.elapsed() < OPENING_TIME && closed.recv_timeout(STANDBY_POLL) == Err(RecvTimeoutError::Timeout)
            {
                // Renews the lease. The answer is checked before the first batch.
                let _ = outbox.acquire_lease();
            }
            Ok(opening.join().unwrap_or_else(|panic| resume_unwind(panic))?)
        })
    }
}
