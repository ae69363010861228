//! An event log that a test can pause, make unavailable or shorten. Other calls go to the log inside.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_log::{Committed, EventLog, GroupReader, LogError, PassedOver, Positions, Publisher, Reader, RecordRef};

/// How long a paused poll waits before it returns no records.
const PACE: Duration = Duration::from_millis(2);

/// The error of a log that is away.
pub(crate) const AWAY: &str = "the event log is unavailable: the test took it away";

/// The number of a reader of a group, which is not counted.
const GROUP_READER: u64 = u64::MAX;

/// The switches of the log. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Switches {
    away: Arc<AtomicBool>,
    feed_held: Arc<AtomicBool>,
    /// The number of readers of all partitions that were opened, and how many of the first ones return no more records.
    opened: Arc<AtomicU64>,
    /// The number of readers of all partitions that are open.
    open: Arc<AtomicU64>,
    stuck: Arc<AtomicU64>,
    /// Batches that the feed's reader will report as skipped.
    passed_over: Arc<Mutex<Vec<PassedOver>>>,
    /// The start offsets of the log, as if earlier records were deleted.
    starts: Arc<Mutex<Positions>>,
    /// Locked while the feed polls.
    feed_polls: Arc<Mutex<()>>,
}

impl Switches {
    /// Whether the log is away: every call fails.
    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// Pauses the readers of all partitions before it returns, or resumes them. Group readers continue.
    pub(crate) fn hold_feed(&self, held: bool) {
        self.feed_held.store(held, Ordering::SeqCst);
        drop(self.feed_polls.lock().expect("no panic while it is held"));
    }

    /// The number of readers of all partitions that are open.
    pub(crate) fn open_readers(&self) -> u64 {
        self.open.load(Ordering::SeqCst)
    }

    /// Makes the open readers of all partitions return no more records.
    pub(crate) fn stick_open_readers(&self) {
        self.stuck.store(self.opened.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Makes the feed's reader report `batch` as skipped.
    pub(crate) fn pass_over(&self, batch: PassedOver) {
        self.passed_over.lock().expect("no panic while it is held").push(batch);
    }

    /// Sets the start offsets of the log for readers of all partitions that are opened later.
    pub(crate) fn delete_before(&self, starts: Positions) {
        *self.starts.lock().expect("no panic while it is held") = starts;
    }

    fn starts(&self) -> Positions {
        self.starts.lock().expect("no panic while it is held").clone()
    }

    fn check(&self) -> Result<(), LogError> {
        match self.away.load(Ordering::SeqCst) {
            true => Err(LogError::Unavailable("the test took it away".to_owned())),
            false => Ok(()),
        }
    }
}

/// The log that the service under test uses.
pub(crate) struct SwitchedLog {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) switches: Switches,
}

impl EventLog for SwitchedLog {
    fn describe(&self) -> String {
        self.log.describe()
    }

    fn prepare(&self) -> Result<(), LogError> {
        self.switches.check()?;
        self.log.prepare()
    }

    fn publisher(&self, name: &str) -> Result<Box<dyn Publisher>, LogError> {
        self.switches.check()?;
        self.log.publisher(name)
    }

    fn committed(&self, name: &str, timeout: Duration) -> Result<Option<Committed>, LogError> {
        self.switches.check()?;
        self.log.committed(name, timeout)
    }

    fn reader(&self, from: &Positions) -> Result<Box<dyn Reader>, LogError> {
        self.switches.check()?;
        let mut from = from.clone();
        for (partition, start) in self.switches.starts() {
            let position = from.entry(partition).or_insert(0);
            *position = start.max(*position);
        }
        let number = self.switches.opened.fetch_add(1, Ordering::SeqCst) + 1;
        let reader = self.log.reader(&from)?;
        self.switches.open.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Switched { reader, switches: self.switches.clone(), number }))
    }

    fn group_reader(&self, group: &str) -> Result<Box<dyn GroupReader>, LogError> {
        self.switches.check()?;
        let reader = self.log.group_reader(group)?;
        Ok(Box::new(Switched { reader, switches: self.switches.clone(), number: GROUP_READER }))
    }

    fn start_offsets(&self, _timeout: Duration) -> Result<Positions, LogError> {
        self.switches.check()?;
        Ok(self.switches.starts())
    }

    fn warnings(&self) -> Vec<String> {
        self.log.warnings()
    }

    fn end_offsets(&self, timeout: Duration) -> Result<Positions, LogError> {
        self.switches.check()?;
        self.log.end_offsets(timeout)
    }
}

struct Switched<R: ?Sized> {
    switches: Switches,
    reader: Box<R>,
    /// The number of the reader, in the order of opening.
    number: u64,
}

impl<R: ?Sized> Drop for Switched<R> {
    fn drop(&mut self) {
        if self.number != GROUP_READER {
            self.switches.open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Reader for Switched<dyn Reader> {
    fn poll(&mut self, timeout: Duration, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError> {
        self.switches.check()?;
        let polling = self.switches.feed_polls.lock().expect("no panic while it is held");
        if self.switches.feed_held.load(Ordering::SeqCst) || self.number <= self.switches.stuck.load(Ordering::SeqCst) {
            drop(polling);
            std::thread::park_timeout(PACE);
            return Ok(0);
        }
        self.reader.poll(timeout.min(PACE), apply)
    }

    fn positions(&self) -> Positions {
        self.reader.positions()
    }

    fn durable_positions(&self) -> Positions {
        self.reader.durable_positions()
    }

    fn trouble(&self) -> Option<String> {
        self.reader.trouble()
    }

    fn passed_over(&mut self) -> Vec<PassedOver> {
        std::mem::take(&mut *self.switches.passed_over.lock().expect("no panic while it is held"))
    }
}

impl GroupReader for Switched<dyn GroupReader> {
    fn poll(&mut self, timeout: Duration, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError> {
        self.switches.check()?;
        self.reader.poll(timeout.min(PACE), apply)
    }

    fn commit(&mut self) -> Result<(), LogError> {
        self.switches.check()?;
        self.reader.commit()
    }
}
