//! The last events that the feed applied, for the event streams.
//!
//! The feed pushes each batch while somebody listens; otherwise a batch costs one load. Streams take batches at their own pace: a
//! stream that falls behind the ring has lost its place, and the feed never waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use account_events::AccountEvent;
use clock::Clock;
use event_log::{Positions, RecordRef};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::accounts::status::ViewStatus;

/// The most events in the ring, about 5 MB: several seconds at ten thousand events a second.
const MAX_EVENTS: usize = 65_536;

/// The most batches that a stream takes at once, and so holds while it sends them.
const MAX_TAKEN: usize = 64;

/// An event with its place in the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlacedEvent {
    pub(crate) event: AccountEvent,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    /// When the event was committed (`ce_time`), if the record says so.
    pub(crate) time: Option<Timestamp>,
}

impl PlacedEvent {
    pub(crate) fn new(event: AccountEvent, record: RecordRef<'_>) -> Self {
        let time = record.headers.get("ce_time").and_then(|time| str::from_utf8(time).ok()?.parse().ok());
        PlacedEvent { event, partition: record.partition, offset: record.offset, time }
    }
}

/// The events of a batch that was applied to the view.
#[derive(Debug)]
pub(crate) struct AppliedBatch {
    pub(crate) events: Vec<PlacedEvent>,
    /// The positions of the feed after the batch.
    pub(crate) end: Positions,
    pub(crate) applied_at: Timestamp,
}

/// The ring, shared by the feed and the streams.
#[derive(Debug)]
pub(crate) struct EventRing {
    listeners: AtomicUsize,
    state: Mutex<State>,
    pushes: watch::Sender<()>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct State {
    /// How often the log was replaced: the feed read from earlier positions again.
    replacements: u64,
    /// The number of the ring. Each gap in what the feed read begins a new one.
    generation: u64,
    /// `None` while nobody listens.
    ring: Option<Ring>,
}

/// Batches without a gap between them.
#[derive(Debug, Default)]
struct Ring {
    /// The number of the first batch.
    first: u64,
    batches: VecDeque<Arc<AppliedBatch>>,
    /// The number of events in them.
    events: usize,
    /// The positions before the first batch, and after the last one.
    start: Positions,
    end: Positions,
}

/// The place of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The replacements of the log that the stream knows of, whether it is in the ring or not.
    replacements: u64,
    /// The generation of the ring, and the number of the next batch; `None` outside of the ring.
    in_ring: Option<(u64, u64)>,
}

/// What comes next for a stream.
#[derive(Debug)]
pub(crate) enum Next {
    Batches(Vec<Arc<AppliedBatch>>),
    /// Nothing until the next push.
    Nothing,
    /// The ring begins after the stream's position. The log may have what is missing.
    TooOld,
    /// The ring has dropped what the stream has not read yet.
    FellBehind,
    /// The log was replaced: its records are others than those that the stream has read.
    Replaced,
}

impl EventRing {
    pub(crate) fn new(clock: Clock) -> Self {
        EventRing { listeners: AtomicUsize::new(0), state: Mutex::default(), pushes: watch::Sender::default(), clock }
    }

    /// Whether batches are to be recorded for [`push`](Self::push).
    pub(crate) fn is_listened(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) > 0
    }

    /// Has the feed push its batches while the listener exists. A ring begins at the positions of the view if there is none.
    pub(crate) fn listen(self: &Arc<Self>, status: &ViewStatus) -> Listener {
        let mut state = self.state.lock();
        self.listeners.fetch_add(1, Ordering::Relaxed);
        if state.ring.is_none() {
            state.begin(status.positions());
        }
        let place = Place { replacements: state.replacements, in_ring: None };
        Listener { ring: Arc::clone(self), pushes: self.pushes.subscribe(), place }
    }

    /// Adds the events between the positions `start` and `end`, if somebody listens. `events` is `None` if they were not recorded.
    pub(crate) fn push(&self, events: Option<Vec<PlacedEvent>>, start: &Positions, end: &Positions) {
        if !self.is_listened() || (covers(start, end) && covers(end, start)) {
            return;
        }
        let batch = events.map(|events| AppliedBatch { events, end: end.clone(), applied_at: self.clock.now() });
        self.state.lock().push(batch.map(Arc::new), start, end);
        self.pushes.send_replace(());
    }

    /// What comes next for a stream that has read up to `cursor`. Updates its place.
    pub(crate) fn next(&self, place: &mut Place, cursor: &Positions) -> Next {
        let state = self.state.lock();
        let Some(ring) = &state.ring else { return Next::Nothing };
        if place.replacements != state.replacements {
            *place = Place { replacements: state.replacements, in_ring: None };
            return Next::Replaced;
        }
        let in_ring = place.in_ring.filter(|(generation, _)| *generation == state.generation);
        let next = match in_ring {
            Some((_, next)) if next < ring.first => return Next::FellBehind,
            Some((_, next)) => next,
            None if !covers(cursor, &ring.start) => return Next::TooOld,
            None => ring.first + ring.batches.partition_point(|batch| covers(cursor, &batch.end)) as u64,
        };
        let taken: Vec<_> = ring.batches.iter().skip((next - ring.first) as usize).take(MAX_TAKEN).cloned().collect();
        place.in_ring = Some((state.generation, next + taken.len() as u64));
        if taken.is_empty() { Next::Nothing } else { Next::Batches(taken) }
    }

    /// Whether a stream that has read up to `cursor` goes on with [`next`](Self::next).
    pub(crate) fn has(&self, place: Place, cursor: &Positions) -> bool {
        let state = self.state.lock();
        let is_in_ring = state.ring.as_ref().is_some_and(|ring| covers(cursor, &ring.start));
        is_in_ring || place.replacements != state.replacements
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl State {
    fn begin(&mut self, at: Positions) {
        self.generation += 1;
        self.ring = Some(Ring { start: at.clone(), end: at, ..Ring::default() });
    }

    fn push(&mut self, batch: Option<Arc<AppliedBatch>>, start: &Positions, end: &Positions) {
        let Some(ring) = &self.ring else { return };
        let (is_continued, goes_back) = (covers(&ring.end, start), !covers(start, &ring.end) || !covers(end, start));
        self.replacements += u64::from(goes_back);
        let Some(batch) = batch else { return self.begin(end.clone()) };
        if goes_back || !is_continued {
            // A partition that goes back within the batch begins at its first record.
            let is_passed = |(partition, offset): &(&u32, &u64)| end.get(partition) >= Some(offset);
            self.begin(start.iter().filter(is_passed).map(|(partition, offset)| (*partition, *offset)).collect());
        }
        let Some(ring) = &mut self.ring else { return };
        ring.events += batch.events.len();
        ring.end.clone_from(end);
        ring.batches.push_back(batch);
        // A batch without events counts as one, so that the number of batches is bounded too.
        while ring.events + ring.batches.len() > MAX_EVENTS
            && let Some(oldest) = ring.batches.pop_front()
        {
            ring.events -= oldest.events.len();
            ring.first += 1;
            ring.start.clone_from(&oldest.end);
        }
    }
}

/// Keeps the ring filled while it exists.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) ring: Arc<EventRing>,
    /// Changes with each push.
    pub(crate) pushes: watch::Receiver<()>,
    /// Where a stream begins.
    pub(crate) place: Place,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut state = self.ring.state.lock();
        if self.ring.listeners.fetch_sub(1, Ordering::Relaxed) == 1 {
            state.ring = None;
        }
    }
}

/// Whether everything before `positions` is before `cursor`.
pub(crate) fn covers(cursor: &Positions, positions: &Positions) -> bool {
    positions.iter().all(|(partition, offset)| cursor.get(partition).unwrap_or(&0) >= offset)
}

#[cfg(test)]
mod tests;
