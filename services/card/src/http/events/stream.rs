//! One stream. A task takes events from the ring, or from the log if the ring does not have them, and sends them to the caller.

use std::fmt::Write as _;
use std::sync::Arc;

use access::{Caller, Scope};
use account_events::{AccountId, AccountStatus};
use bytes::Bytes;
use event_log::Positions;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep_until, timeout};

use super::cursor::Cursor;
use super::from_log::{OFFSETS_TIMEOUT, blocking};
use crate::accounts::event_ring::{EventRing, Listener, Next, PlacedEvent, covers};
use crate::http::response::CardService;

/// The size at which a block is sent.
const BLOCK_BYTES: usize = 32 * 1024;

/// Where a stream begins.
#[derive(Debug)]
pub(super) enum Start {
    /// At the present position of the view.
    Present,
    /// At the oldest record of the log.
    Oldest,
    /// After the event with this `id`.
    After(Cursor),
}

/// Why events may be missing before the next one, as a stable name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Gap {
    /// The position is of another log, or beyond the end of this one. The stream goes on at the oldest record.
    OtherLog,
    /// The log does not have the next records any more. The stream goes on at the oldest ones.
    RecordsDeleted,
}

/// The stream ends: the caller is gone, slow or not allowed any more, or the log cannot be read. The caller may resume it.
#[derive(Debug)]
pub(super) struct Ended;

pub(super) struct Stream {
    pub(super) service: Arc<CardService>,
    listener: Listener,
    /// Only events of this account.
    account_id: Option<AccountId>,
    /// Who reads, if callers are authenticated.
    caller: Option<Caller>,
    sender: Sender<Bytes>,
    pub(super) cursor: Cursor,
    /// What was not sent yet.
    text: String,
    /// When the next comment is due.
    comment_due: Instant,
}

/// The `data` of an event.
#[derive(Serialize)]
struct Data {
    r#type: &'static str,
    account_id: AccountId,
    status: AccountStatus,
    version: Option<u32>,
    partition: u32,
    offset: u64,
    time: Option<Timestamp>,
    age_seconds: Option<f64>,
}

impl Stream {
    /// A stream to `sender`. The ring keeps events for it from now on.
    pub(super) fn new(
        service: Arc<CardService>,
        account_id: Option<AccountId>,
        caller: Option<Caller>,
        sender: Sender<Bytes>,
    ) -> Self {
        let listener = service.events.ring.listen(&service.status);
        let cursor = Cursor { log_id: log_id(&service), positions: service.status.positions() };
        let comment_due = Instant::now();
        Stream { service, listener, account_id, caller, sender, cursor, text: String::new(), comment_due }
    }

    /// Sends events until the caller is gone or slow, or the service stops.
    pub(super) async fn run(mut self, start: Start) {
        let (sender, shutdown) = (self.sender.clone(), self.service.shutdown.clone());
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = sender.closed() => {}
            Err(Ended) = self.follow(start) => {}
        }
    }

    async fn follow(&mut self, start: Start) -> Result<(), Ended> {
        let mut is_behind = !matches!(start, Start::Present);
        match start {
            Start::Present => {}
            Start::Oldest => self.cursor.positions.clear(),
            Start::After(cursor) => self.resume(cursor).await?,
        }
        loop {
            self.comment_if_due().await?;
            self.listener.pushes.borrow_and_update();
            match self.listener.ring.next(&mut self.listener.place, &self.cursor.positions) {
                Next::Batches(batches) => {
                    for batch in batches {
                        for event in &batch.events {
                            self.add(event, batch.applied_at).await?;
                        }
                        self.cursor.advance(&batch.end);
                    }
                    self.send().await?;
                }
                // A reader that wants no more than the events until now need not wait for the next comment.
                Next::Nothing if std::mem::take(&mut is_behind) => self.comment_due = Instant::now(),
                Next::Nothing => {
                    tokio::select! {
                        _ = self.listener.pushes.changed() => {}
                        () = sleep_until(self.comment_due) => {}
                    }
                }
                Next::TooOld => self.read_log().await?,
                Next::FellBehind => {
                    tracing::debug!("an event stream ends: its reader is too slow");
                    return Err(Ended);
                }
                Next::Replaced => self.gap(Gap::OtherLog, Positions::new()).await?,
            }
        }
    }

    /// Continues at `cursor`, if it is of this log.
    async fn resume(&mut self, cursor: Cursor) -> Result<(), Ended> {
        if cursor.is_of_another_log(&self.cursor.log_id) {
            return self.gap(Gap::OtherLog, Positions::new()).await;
        }
        // Another instance may be ahead of this one, but not of the log.
        if !covers(&self.cursor.positions, &cursor.positions) {
            let log = Arc::clone(&self.service.log);
            let ends = blocking(move || log.end_offsets(OFFSETS_TIMEOUT)).await?;
            if !covers(&ends, &cursor.positions) {
                return self.gap(Gap::OtherLog, Positions::new()).await;
            }
        }
        self.cursor.positions = cursor.positions;
        Ok(())
    }

    /// Adds an event that the stream has not passed. `at` is when this instance read it.
    pub(super) async fn add(&mut self, placed: &PlacedEvent, at: Timestamp) -> Result<(), Ended> {
        let PlacedEvent { event, partition, offset, time } = *placed;
        let next = self.cursor.positions.entry(partition).or_default();
        if offset < *next {
            return Ok(());
        }
        *next = offset + 1;
        if self.account_id.is_some_and(|id| id != event.account_id) {
            return Ok(());
        }
        let age_ms = time.map(|time| at.as_millisecond().saturating_sub(time.as_millisecond()).max(0));
        let data = Data {
            r#type: event.event_type.as_str(),
            account_id: event.account_id,
            status: event.status,
            version: event.version,
            partition,
            offset,
            time,
            age_seconds: age_ms.map(|age| age as f64 / 1_000.0),
        };
        self.push(None, &data);
        if self.text.len() >= BLOCK_BYTES { self.send().await } else { Ok(()) }
    }

    /// Says that events may be missing, and goes on at `positions`.
    pub(super) async fn gap(&mut self, gap: Gap, positions: Positions) -> Result<(), Ended> {
        self.cursor = Cursor { log_id: log_id(&self.service), positions };
        self.push(Some("gap"), &serde_json::json!({ "reason": gap }));
        self.send().await
    }

    fn push(&mut self, name: Option<&str>, data: &impl Serialize) {
        // Writing to memory does not fail, and the data are numbers and texts.
        let data = serde_json::to_string(data).unwrap_or_default();
        let name = name.map(|name| format!("event: {name}\n")).unwrap_or_default();
        let _ = write!(self.text, "id: {}\n{name}data: {data}\n\n", self.cursor);
    }

    /// Sends a comment with the position if one is due, so that proxies keep the connection and a filtered stream resumes here. Ends
    /// the stream if the caller's credentials were revoked or have expired by then.
    pub(super) async fn comment_if_due(&mut self) -> Result<(), Ended> {
        if Instant::now() < self.comment_due {
            return Ok(());
        }
        if let Some(caller) = &self.caller
            && !caller.may_still(Scope::EventsRead).await
        {
            tracing::debug!(
                caller = &*caller.name,
                "an event stream ends: its caller's credentials are not valid any more"
            );
            return Err(Ended);
        }
        self.comment_due = Instant::now() + self.service.events.settings.heartbeat;
        if self.cursor.log_id.is_empty() {
            self.cursor.log_id = log_id(&self.service);
        }
        let _ = write!(self.text, ": position\nid: {}\n\n", self.cursor);
        self.send().await
    }

    /// Waits until the next comment is due.
    pub(super) async fn comment_due(&self) {
        sleep_until(self.comment_due).await;
    }

    /// Sends what was added.
    pub(super) async fn send(&mut self) -> Result<(), Ended> {
        if self.text.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.text).into();
        match timeout(self.service.events.settings.patience, self.sender.send(block)).await {
            Ok(sent) => sent.map_err(|_gone| Ended),
            Err(_elapsed) => {
                tracing::debug!("an event stream ends: its reader does not read");
                Err(Ended)
            }
        }
    }

    pub(super) fn ring(&self) -> &EventRing {
        &self.listener.ring
    }

    /// Whether the stream need not read the log itself.
    pub(super) fn is_in_ring(&self) -> bool {
        self.ring().has(self.listener.place, &self.cursor.positions)
    }
}

/// The id of the log; empty if it is not known.
fn log_id(service: &CardService) -> String {
    service.status.log().map(|log| log.id).unwrap_or_default()
}
