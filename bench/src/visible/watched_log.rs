//! A log, with a look at what goes in and what comes out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_log::{EventLog, GroupReader, LogError, Positions, Publisher, Reader, Record, RecordRef};
use uuid::Uuid;

/// Moments that there is room for from the start: who notes one is not to wait for a list that is made larger.
const ROOM: usize = 500_000;

/// When the relay began to publish a record, and when the view had it, by the account that is the record's key.
#[derive(Default)]
pub(super) struct Seen {
    published: Mutex<Vec<(Uuid, Instant)>>,
    visible: Mutex<Vec<(Uuid, Instant)>>,
}

impl Seen {
    /// Begins anew.
    pub(super) fn forget(&self) {
        for moments in [&self.published, &self.visible] {
            let mut moments = lock(moments);
            moments.clear();
            moments.reserve(ROOM);
        }
    }

    /// How many records the view has.
    pub(super) fn visible_count(&self) -> usize {
        lock(&self.visible).len()
    }

    /// When each account was first published, and when it was first visible.
    pub(super) fn moments(&self) -> [HashMap<Uuid, Instant>; 2] {
        // Of two moments of an account the earlier one stands last, and so stays.
        [&self.published, &self.visible].map(|moments| lock(moments).iter().rev().copied().collect())
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn account_of(key: Option<&[u8]>) -> Option<Uuid> {
    Uuid::try_parse_ascii(key?).ok()
}

/// The log, and what was seen of it.
pub(super) struct WatchedLog {
    pub(super) log: Arc<dyn EventLog>,
    pub(super) seen: Arc<Seen>,
}

impl EventLog for WatchedLog {
    fn describe(&self) -> String {
        self.log.describe()
    }

    fn prepare(&self) -> Result<(), LogError> {
        self.log.prepare()
    }

    fn publisher(&self, name: &str) -> Result<Box<dyn Publisher>, LogError> {
        Ok(Box::new(WatchedPublisher { publisher: self.log.publisher(name)?, seen: Arc::clone(&self.seen) }))
    }

    fn reader(&self, from: &Positions) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(WatchedReader { reader: self.log.reader(from)?, seen: Arc::clone(&self.seen) }))
    }

    fn group_reader(&self, group: &str) -> Result<Box<dyn GroupReader>, LogError> {
        self.log.group_reader(group)
    }

    fn end_offsets(&self, timeout: Duration) -> Result<Positions, LogError> {
        self.log.end_offsets(timeout)
    }
}

struct WatchedPublisher {
    publisher: Box<dyn Publisher>,
    seen: Arc<Seen>,
}

impl WatchedPublisher {
    fn note(&self, records: &[Record]) {
        let now = Instant::now();
        let accounts = records.iter().filter_map(|record| account_of(record.key.as_deref()));
        lock(&self.seen.published).extend(accounts.map(|account| (account, now)));
    }
}

impl Publisher for WatchedPublisher {
    fn position(&self) -> Option<u64> {
        self.publisher.position()
    }

    fn append(&mut self, records: &[Record], position: u64) -> Result<(), LogError> {
        self.note(records);
        self.publisher.append(records, position)
    }

    fn commit_due(&self) -> Option<Duration> {
        self.publisher.commit_due()
    }

    fn commit(&mut self) -> Result<(), LogError> {
        self.publisher.commit()
    }

    fn gathering_time(&self, count: usize) -> Duration {
        self.publisher.gathering_time(count)
    }

    fn check(&mut self) -> Result<(), LogError> {
        self.publisher.check()
    }
}

struct WatchedReader {
    reader: Box<dyn Reader>,
    seen: Arc<Seen>,
}

impl Reader for WatchedReader {
    fn poll(&mut self, timeout: Duration, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError> {
        self.reader.poll(timeout, &mut |record| {
            apply(record);
            if let Some(account) = account_of(record.key) {
                lock(&self.seen.visible).push((account, Instant::now()));
            }
        })
    }

    fn positions(&self) -> Positions {
        self.reader.positions()
    }

    fn durable_positions(&self) -> Positions {
        self.reader.durable_positions()
    }
}
