//! What the feed logs of the events that it takes.

use std::time::Instant;

use account_events::AccountEvent;
use process::SampledLog;

use crate::accounts::view::Applied;

/// The lines that the seed's card service logs for each event. A few a second are logged and the others counted, so that
/// a replay is not slowed and a disk not filled.
#[derive(Default)]
pub(super) struct EventLines(SampledLog);

impl EventLines {
    pub(super) fn applied(&mut self, event: &AccountEvent, applied: Applied, now: Instant) {
        let Some(left_out) = self.0.allow(now) else { return };
        say_left_out(left_out);
        let (event_type, id, status) = (event.event_type.as_str(), event.account_id, event.status.as_str());
        tracing::info!("Received account event: type={event_type}, account_id={id}, status={status}");
        if applied != Applied::Unchanged {
            tracing::info!("Updated account cache: account_id={id}, status={status}");
        }
    }

    /// Says after a burst what was left out of it.
    pub(super) fn quiet(&mut self) {
        say_left_out(self.0.flush());
    }
}

fn say_left_out(events: u64) {
    if events > 0 {
        tracing::info!(events, "left out the lines of {events} account events");
    }
}
