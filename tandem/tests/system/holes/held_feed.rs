//! An event log whose readers can be held back, while its group readers are not: an instance whose view is behind what the
//! card closers have handled.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use event_log::{Committed, EventLog, GroupReader, LogError, Positions, Publisher, Reader, RecordRef};

pub(super) struct HeldFeed {
    log: Arc<dyn EventLog>,
    held: Arc<Mutex<bool>>,
}

struct HeldReader {
    reader: Box<dyn Reader>,
    held: Arc<Mutex<bool>>,
}

impl HeldFeed {
    pub(super) fn new(log: Arc<dyn EventLog>) -> Self {
        HeldFeed { log, held: Arc::default() }
    }

    /// From when this returns, readers are handed nothing: it waits for a poll that is on its way.
    pub(super) fn hold(&self) {
        *self.held.lock().expect("no panic while it is locked") = true;
    }

    pub(super) fn release(&self) {
        *self.held.lock().expect("no panic while it is locked") = false;
    }
}

impl EventLog for HeldFeed {
    fn describe(&self) -> String {
        self.log.describe()
    }

    fn prepare(&self) -> Result<(), LogError> {
        self.log.prepare()
    }

    fn publisher(&self, name: &str) -> Result<Box<dyn Publisher>, LogError> {
        self.log.publisher(name)
    }

    fn committed(&self, name: &str, timeout: Duration) -> Result<Option<Committed>, LogError> {
        self.log.committed(name, timeout)
    }

    fn reader(&self, from: &Positions) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(HeldReader { reader: self.log.reader(from)?, held: Arc::clone(&self.held) }))
    }

    fn group_reader(&self, group: &str) -> Result<Box<dyn GroupReader>, LogError> {
        self.log.group_reader(group)
    }

    fn end_offsets(&self, timeout: Duration) -> Result<Positions, LogError> {
        self.log.end_offsets(timeout)
    }
}

impl Reader for HeldReader {
    fn poll(&mut self, timeout: Duration, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError> {
        let until = Instant::now() + timeout;
        while Instant::now() < until {
            let held = self.held.lock().expect("no panic while it is locked");
            // Short polls, so that holding takes effect soon.
            let read = if *held { 0 } else { self.reader.poll(PACE, apply)? };
            drop(held);
            if read > 0 {
                return Ok(read);
            }
            std::thread::park_timeout(PACE);
        }
        Ok(0)
    }

    fn positions(&self) -> Positions {
        self.reader.positions()
    }

    fn durable_positions(&self) -> Positions {
        self.reader.durable_positions()
    }
}

/// How often a reader looks whether it is held.
const PACE: Duration = Duration::from_millis(5);
