//! `GET /events?account_id=&from=`: the account events as this instance's view applies them, as server-sent events.

mod cursor;
mod from_log;
mod stream;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use access::Caller;
use account_events::AccountId;
use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use http_server::{Content, Operation, QueryParams, body_of};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::mpsc::channel;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::IntoParams;

use self::cursor::Cursor;
use self::stream::{Start, Stream};
use crate::accounts::event_ring::EventRing;
use crate::error::CardError;
use crate::http::response::CardService;

/// The readers of the log that streams may have open at once: each is a consumer with its buffers. Further streams wait.
const MAX_LOG_READERS: usize = 4;

/// The blocks that may wait for a caller. The stream ends if the caller does not take the next one in time.
const WAITING_BLOCKS: usize = 4;

/// The bounds of the event streams.
#[derive(Debug, Clone, Copy)]
pub struct EventStreamSettings {
    /// The streams that may be open at once.
    pub max_streams: usize,
    /// How often a stream gets a comment with its position.
    pub heartbeat: Duration,
    /// How long a caller may take for a block of events before its stream ends.
    pub patience: Duration,
}

/// The default of `MAX_EVENT_STREAMS`.
pub const DEFAULT_MAX_EVENT_STREAMS: u16 = 100;

impl Default for EventStreamSettings {
    fn default() -> Self {
        EventStreamSettings {
            max_streams: usize::from(DEFAULT_MAX_EVENT_STREAMS),
            // Less than the idle time of any proxy.
            heartbeat: Duration::from_secs(15),
            patience: Duration::from_secs(10),
        }
    }
}

/// What the streams share.
pub(crate) struct EventStreams {
    ring: Arc<EventRing>,
    settings: EventStreamSettings,
    places: Arc<Semaphore>,
    log_readers: Arc<Semaphore>,
    /// The streams of each authenticated caller.
    of_callers: Arc<Mutex<HashMap<Arc<str>, usize>>>,
}

impl EventStreams {
    pub(crate) fn new(ring: Arc<EventRing>, settings: EventStreamSettings) -> Self {
        let places = Arc::new(Semaphore::new(settings.max_streams));
        let log_readers = Arc::new(Semaphore::new(MAX_LOG_READERS));
        EventStreams { ring, settings, places, log_readers, of_callers: Arc::default() }
    }

    /// Takes a place for a stream of `caller`. A caller has at most half of the places, so that it does not keep the others out.
    fn place(&self, caller: Option<&Caller>) -> Result<StreamPlace, CardError> {
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| CardError::TooManyStreams)?;
        let caller = caller.map(|caller| Arc::clone(&caller.name));
        if let Some(caller) = &caller {
            let mut of_callers = self.of_callers.lock();
            let count = of_callers.entry(Arc::clone(caller)).or_default();
            if *count >= self.settings.max_streams.div_ceil(2) {
                return Err(CardError::TooManyStreams);
            }
            *count += 1;
        }
        Ok(StreamPlace { _permit: permit, caller, of_callers: Arc::clone(&self.of_callers) })
    }
}

/// The place of a stream, which is free when this value is dropped.
struct StreamPlace {
    _permit: OwnedSemaphorePermit,
    caller: Option<Arc<str>>,
    of_callers: Arc<Mutex<HashMap<Arc<str>, usize>>>,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let Some(caller) = &self.caller else { return };
        let mut of_callers = self.of_callers.lock();
        if let Some(count) = of_callers.get_mut(caller) {
            *count -= 1;
            if *count == 0 {
                of_callers.remove(caller);
            }
        }
    }
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct EventsQuery {
    /// Only the events of this account.
    #[param(value_type = AccountId, required = false)]
    account_id: Option<String>,
    /// `start`: begins at the oldest record of the log, not at the present.
    #[param(value_type = String, required = false, pattern = "^start$", example = "start")]
    from: Option<String>,
}

pub(crate) async fn stream_events(
    State(service): State<Arc<CardService>>,
    QueryParams(query): QueryParams<EventsQuery>,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
) -> Result<Response, CardError> {
    let account_id = query.account_id.map(|id| id.parse::<AccountId>()).transpose()?;
    let start = match (last_event_id(&headers)?, query.from.as_deref()) {
        (_, Some(from)) if from != "start" => return Err(CardError::InvalidStart),
        (Some(cursor), _) => Start::After(cursor),
        (None, Some(_)) => Start::Oldest,
        (None, None) => Start::Present,
    };
    if service.status.is_catching_up() {
        return Err(CardError::CatchingUp);
    }
    let caller = caller.map(|Extension(caller)| caller);
    let place = service.events.place(caller.as_ref())?;
    let (sender, receiver) = channel(WAITING_BLOCKS);
    let stream = Stream::new(service, account_id, caller, sender);
    tokio::spawn(async move {
        stream.run(start).await;
        drop(place);
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, body_of(receiver)).into_response())
}

pub(crate) fn stream_events_operation() -> Operation {
    let example = "id: 0f6c4d1e;0:18,1:4,2:9\ndata: {\"type\":\"account.created\",\
                   \"account_id\":\"550e8400-e29b-41d4-a716-446655440000\",\"status\":\"ACTIVE\",\"version\":1,\
                   \"partition\":0,\"offset\":17,\"time\":\"2026-11-30T10:30:00.123Z\",\"age_seconds\":0.004}\n\n";
    Operation::new("stream_events", "Accounts", "Streams the account events as the view of this instance applies them.")
        .description("The stream does not end by itself. docs/api.md, \"The event stream\", has its format.")
        .query::<EventsQuery>()
        .request_headers(&["Last-Event-ID"])
        .answer(200, "Server-sent events.", Content::text("text/event-stream", example), &[])
        .errors(&["invalid_account_id", "invalid_from", "invalid_last_event_id", "catching_up", "overloaded"])
}

/// The position in `Last-Event-ID`. A browser sends none as long as it has none.
fn last_event_id(headers: &HeaderMap) -> Result<Option<Cursor>, CardError> {
    let Some(id) = headers.get("Last-Event-ID").filter(|id| !id.is_empty()) else { return Ok(None) };
    let cursor = id.to_str().ok().and_then(|id| id.parse().ok());
    cursor.map(Some).ok_or(CardError::InvalidLastEventId)
}
