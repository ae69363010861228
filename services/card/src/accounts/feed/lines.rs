//! The log lines for account events.

use std::time::Instant;

use account_events::AccountEvent;
use process::SampledLog;

use crate::accounts::view::Applied;

/// Logs the seed's two lines for an event. A few events a second are logged and the others are counted, so that a replay stays
/// fast and does not fill the disk.
#[derive(Default)]
pub(super) struct EventLines(SampledLog);

impl EventLines {
    pub(super) fn applied(&mut self, event: &AccountEvent, applied: Applied, now: Instant) {
        let Some(left_out) = self.0.allow(now) else { return };
        log_left_out(left_out);
        let (event_type, id, status) = (event.event_type.as_str(), event.account_id, event.status.as_str());
        tracing::info!("Received account event: type={event_type}, account_id={id}, status={status}");
        if applied != Applied::Unchanged {
            tracing::info!("Updated account cache: account_id={id}, status={status}");
        }
    }

    /// Logs after a burst how many events were left out.
    pub(super) fn quiet(&mut self) {
        log_left_out(self.0.flush());
    }
}

fn log_left_out(events: u64) {
    if events > 0 {
        tracing::info!(events, "left out the lines of {events} account events");
    }
}
