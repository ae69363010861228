//! What the ring does not have, read from the log with a reader of the stream's own.

use std::sync::Arc;
use std::time::Duration;

use account_events::AccountEvent;
use event_log::{EventLog, LogError, Positions, Reader};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::stream::{Ended, Gap, Stream};
use crate::accounts::event_ring::PlacedEvent;

/// How long the log may take to return its start or end offsets.
pub(super) const OFFSETS_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one poll waits for records.
const POLL: Duration = Duration::from_millis(100);

/// How long the log may bring nothing before the stream ends.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// A reader of the log, and its place among [`MAX_LOG_READERS`](super::MAX_LOG_READERS). Closing a consumer takes a while, so a thread
/// that may block does it.
struct LogReader(Option<(Box<dyn Reader>, OwnedSemaphorePermit)>);

impl Drop for LogReader {
    fn drop(&mut self) {
        // The reader is closed first, then its place is free.
        let closing = self.0.take();
        spawn_blocking(move || drop(closing));
    }
}

impl Stream {
    /// Sends events from the log until the ring has the next ones, or the log was replaced.
    pub(super) async fn read_log(&mut self) -> Result<(), Ended> {
        let log_readers = Arc::clone(&self.service.events.log_readers);
        let permit = loop {
            tokio::select! {
                permit = Arc::clone(&log_readers).acquire_owned() => break permit.map_err(|_closed| Ended)?,
                () = self.comment_due() => self.comment_if_due().await?,
            }
        };
        let (log, from) = (Arc::clone(&self.service.log), self.cursor.positions.clone());
        let (mut reader, start) = blocking(move || open(log.as_ref(), from, permit)).await?;
        if let Some(start) = start {
            self.gap(Gap::RecordsDeleted, start).await?;
        }
        let mut progressed = Instant::now();
        while !self.is_in_ring() {
            let (polled, events, positions) = blocking(move || poll(reader)).await?;
            reader = polled;
            let at = self.ring().now();
            for event in &events {
                self.add(event, at).await?;
            }
            let before = self.cursor.positions.clone();
            self.cursor.advance(&positions);
            if before != self.cursor.positions || !events.is_empty() {
                progressed = Instant::now();
            } else if progressed.elapsed() >= STALLED_AFTER {
                tracing::debug!("an event stream ends: the event log brings no records");
                return Err(Ended);
            }
            self.send().await?;
            self.comment_if_due().await?;
        }
        Ok(())
    }
}

/// A reader from `from` on. Also returns the positions at which it begins if the log has lost records before them.
fn open(
    log: &dyn EventLog,
    mut from: Positions,
    permit: OwnedSemaphorePermit,
) -> Result<(LogReader, Option<Positions>), LogError> {
    let mut is_cut = false;
    for (partition, start) in log.start_offsets(OFFSETS_TIMEOUT)? {
        if let Some(position) = from.get_mut(&partition).filter(|position| **position < start) {
            (*position, is_cut) = (start, true);
        }
    }
    Ok((LogReader(Some((log.reader(&from)?, permit))), is_cut.then_some(from)))
}

/// Returns the next events, and the positions after them.
fn poll(mut reader: LogReader) -> Result<(LogReader, Vec<PlacedEvent>, Positions), LogError> {
    let mut events = Vec::new();
    let mut positions = Positions::new();
    if let Some((log, _)) = &mut reader.0 {
        // Records that cannot be decoded are in quarantine.
        log.poll(POLL, &mut |record| {
            events.extend(AccountEvent::decode(record).map(|event| PlacedEvent::new(event, record)));
        })?;
        positions = log.positions();
    }
    Ok((reader, events, positions))
}

/// Runs `read` on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, Ended> {
    let read = spawn_blocking(read).await.map_err(|_panic| Ended)?;
    read.map_err(|error| {
        tracing::debug!(%error, "an event stream ends: the event log cannot be read");
        Ended
    })
}
