//! The card closer closes the cards of deleted accounts (ARCHITECTURE.md C4).
//!
//! It reads the event log as a member of the group `KAFKA_GROUP_ID`. The group's position is committed only after the card database
//! has closed every account up to there, so each deletion is handled at least once, even if all instances stop. Handling it again
//! changes nothing. The feeds make sure that it is handled soon.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use account_events::{AccountEvent, AccountStatus};
use event_log::EventLog;

use crate::closing::Closing;
use crate::store::Store;

/// How long one poll waits for records, and so how late the closer notices that the service stops.
const POLL: Duration = Duration::from_millis(250);

/// How often the group's position is committed.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct CardCloser {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) group: String,
    pub(crate) store: Store,
    pub(crate) stopping: Arc<AtomicBool>,
}

impl CardCloser {
    /// Closes cards until the service stops. After a failure it starts again at the group's position.
    pub(crate) fn run(self) {
        let mut failing = false;
        while !self.stopping() {
            let Err(error) = self.close_until_failure(&mut failing) else { return };
            if !std::mem::replace(&mut failing, true) {
                tracing::warn!(%error, "the card closer failed, retrying");
            }
            std::thread::park_timeout(PAUSE);
        }
    }

    fn close_until_failure(&self, failing: &mut bool) -> anyhow::Result<()> {
        self.log.prepare()?;
        let mut reader = self.log.group_reader(&self.group)?;
        let mut closing = Closing::new(self.store.clone());
        let mut committed = Instant::now();
        let mut uncommitted = false;
        while !self.stopping() {
            let read = reader.poll(POLL, &mut |record| {
                // The feed puts records that cannot be decoded in quarantine.
                let event = AccountEvent::decode(record).ok();
                closing.add(event.filter(|event| event.status == AccountStatus::Deleted).map(|event| event.account_id));
            })?;
            closing.close()?;
            uncommitted |= read > 0;
            if uncommitted && closing.is_done() && committed.elapsed() >= COMMIT_INTERVAL {
                reader.commit()?;
                (committed, uncommitted) = (Instant::now(), false);
            }
            if std::mem::take(failing) {
                tracing::info!("the card closer works again");
            }
        }
        if closing.is_done() {
            reader.commit()?;
        }
        Ok(())
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}
