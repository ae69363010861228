//! The thread that watches the feed: how old the view is, which partitions bring nothing, and whether the log was replaced.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use account_events::{Owner, PUBLISHER};
use event_log::{EventLog, LogError};

use super::{OFFSETS_TIMEOUT, stopping};
use crate::accounts::status::{LogState, Stall, ViewStatus};
use crate::accounts::waiters::Waiters;

/// How often the age of the view is measured: several times in the smallest permitted maximum age of one second.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// How often the owner record is read, and so how late a replaced log is noticed.
const OWNER_INTERVAL: Duration = Duration::from_secs(2);

/// Measures the age of the view: compares its positions with the end offsets of the log, until `stop` is set. Also reads what the log
/// says of itself.
pub(crate) fn watch(log: &dyn EventLog, waiters: &Waiters, stop: &AtomicBool) {
    let status = &*waiters.status;
    let mut owner_read_at: Option<Instant> = None;
    while !stopping(stop) {
        let asked = Instant::now();
        let is_complete = status.log().is_some_and(|log| !log.is_incomplete);
        if !is_complete || owner_read_at.is_none_or(|at| at.elapsed() >= OWNER_INTERVAL) {
            read_owner(log, status);
            owner_read_at = Some(asked);
        }
        let warnings = log.warnings();
        status.update(|progress| progress.warnings = warnings);
        match log.end_offsets(OFFSETS_TIMEOUT) {
            Ok(ends) => match status.compare(&ends, asked) {
                Some(Stall::Began(failure)) => {
                    tracing::warn!(failure, "the account view does not follow the event log")
                }
                Some(Stall::Ended) => tracing::info!("the account view follows all partitions of the event log again"),
                None => {}
            },
            Err(error) => status.update(|progress| progress.unanswered = Some(error.to_string())),
        }
        waiters.wake_ready();
        std::thread::park_timeout(WATCH_INTERVAL);
    }
}

/// Reads the owner record. A log that does not answer is asked again, and one that refuses the answer counts as complete.
fn read_owner(log: &dyn EventLog, status: &ViewStatus) {
    let state = match log.committed(PUBLISHER, OFFSETS_TIMEOUT) {
        Ok(committed) => committed
            .and_then(|committed| Owner::from_note(&committed.note))
            .map_or_else(LogState::default, |owner| LogState { id: owner.log_id, is_incomplete: owner.is_resync_open }),
        Err(LogError::Unavailable(_)) => return,
        Err(error) if status.log().is_some() => {
            return tracing::debug!(%error, "cannot read who publishes to the event log");
        }
        Err(error) => {
            tracing::warn!(%error, "cannot read who publishes to the event log, taking the log for complete");
            LogState::default()
        }
    };
    status.update(|progress| progress.log = Some(state));
}
