//! An event log that a test holds back or takes away. Whatever it lets through is that of the log under it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_log::{Committed, EventLog, GroupReader, LogError, PassedOver, Positions, Publisher, Reader, RecordRef};

/// What a call that is held back waits before it says that nothing has come.
const PACE: Duration = Duration::from_millis(2);

/// What a log that is away says.
pub(crate) const AWAY: &str = "the event log is unavailable: the test took it away";

/// The test's hands on the log. Clones are the same hands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Switches {
    away: Arc<AtomicBool>,
    feed_held: Arc<AtomicBool>,
    /// How many readers of all partitions have been opened, and how many of them, the first ones, bring nothing any more.
    opened: Arc<AtomicU64>,
    stuck: Arc<AtomicU64>,
    /// Batches that the feed is still to be told of as passed over.
    passed_over: Arc<Mutex<Vec<PassedOver>>>,
    /// Where the log begins: records before that are as if deleted.
    starts: Arc<Mutex<Positions>>,
    /// Held by the feed while it may be told of something.
    feed_polls: Arc<Mutex<()>>,
}

impl Switches {
    /// Whether the log is away: every call fails.
    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// Whether readers of all partitions are told of nothing new, from when this returns. Readers in a group are.
    pub(crate) fn hold_feed(&self, held: bool) {
        self.feed_held.store(held, Ordering::SeqCst);
        drop(self.feed_polls.lock().expect("no panic while it is held"));
    }

    /// Has the readers of all partitions that are open now bring nothing any more.
    pub(crate) fn stick_open_readers(&self) {
        self.stuck.store(self.opened.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Has the feed told that a batch was passed over.
    pub(crate) fn pass_over(&self, batch: PassedOver) {
        self.passed_over.lock().expect("no panic while it is held").push(batch);
    }

    /// Has the log begin there for whoever opens a reader of all partitions from now on.
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

/// The log as the service under test is given it.
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
        Ok(Box::new(Switched { reader: self.log.reader(&from)?, switches: self.switches.clone(), number }))
    }

    fn group_reader(&self, group: &str) -> Result<Box<dyn GroupReader>, LogError> {
        self.switches.check()?;
        Ok(Box::new(Switched {
            reader: self.log.group_reader(group)?,
            switches: self.switches.clone(),
            number: u64::MAX,
        }))
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
    /// Which of the readers of all partitions it is.
    number: u64,
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
