use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use event_log::{Committed, GroupReader, Positions, Reader, Record};
use group_commit::StoreError;

use super::*;
use crate::lineage::Lineage;
use crate::outbox::{AccountPage, NextEvents, OutboxSignal};

/// An empty outbox that counts how often the lease is asked for.
struct CountingOutbox(Arc<AtomicU64>);

impl Outbox for CountingOutbox {
    fn acquire_lease(&mut self) -> Result<bool, StoreError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    fn lineage(&mut self, _: Option<&Owner>, _: u64) -> Result<Lineage, StoreError> {
        Err(StoreError::Stopping)
    }

    fn add_session(&mut self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    fn session_confirmed(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn account_sequence_high(&self) -> u64 {
        0
    }

    fn set_superseded(&mut self, _: Option<&str>) -> Result<(), StoreError> {
        Ok(())
    }

    fn superseded(&mut self) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    fn read(&mut self, _: u64, _: u64, _: usize) -> Result<Option<NextEvents<'_>>, StoreError> {
        Ok(None)
    }

    fn removed(&mut self) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn last(&mut self) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn waiting(&mut self, _: u64) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn remove_published(&mut self, _: u64) -> Result<(), StoreError> {
        Ok(())
    }

    fn resync_requested(&mut self) -> Result<Option<ResyncRequest>, StoreError> {
        Ok(None)
    }

    fn request_resync(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn accounts_after(&mut self, _: u64, _: usize) -> Result<AccountPage, StoreError> {
        Ok(AccountPage::default())
    }

    fn resync_done(&mut self, _: ResyncRequest) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A log whose publisher opens at once.
struct QuickLog;

struct QuickPublisher;

impl EventLog for QuickLog {
    fn describe(&self) -> String {
        "a log of the test".to_owned()
    }

    fn publisher(&self, _: &str) -> Result<Box<dyn Publisher>, LogError> {
        Ok(Box::new(QuickPublisher))
    }

    fn committed(&self, _: &str, _: Duration) -> Result<Option<Committed>, LogError> {
        Ok(None)
    }

    fn reader(&self, _: &Positions) -> Result<Box<dyn Reader>, LogError> {
        Err(LogError::Refused("nobody reads here".to_owned()))
    }

    fn group_reader(&self, _: &str) -> Result<Box<dyn GroupReader>, LogError> {
        Err(LogError::Refused("nobody reads here".to_owned()))
    }

    fn end_offsets(&self, _: Duration) -> Result<Positions, LogError> {
        Ok(BTreeMap::new())
    }
}

impl Publisher for QuickPublisher {
    fn position(&self) -> Option<u64> {
        None
    }

    fn note(&self) -> &str {
        ""
    }

    fn set_note(&mut self, _: String) {}

    fn append(&mut self, _: &[Record], _: u64) -> Result<(), LogError> {
        Ok(())
    }
}

#[test]
fn a_publisher_that_is_open_is_used_at_once() {
    const OPENINGS: u64 = 200;
    let asked = Arc::<AtomicU64>::default();
    let mut relay = Relay {
        outbox: Box::new(CountingOutbox(Arc::clone(&asked))),
        signal: OutboxSignal::channel().1,
        log: Arc::new(QuickLog),
        superseded: SupersededState::default(),
        status: Arc::default(),
        stopping: Arc::default(),
        appended: 0,
        backlog: None,
        backlog_published: Arc::default(),
        superseded_by: None,
    };
    for _ in 0..OPENINGS {
        relay.open_publisher().map(drop).expect("a publisher");
    }
    // The lease is renewed after STANDBY_POLL. A relay that misses the wake-up asks once an opening.
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked < OPENINGS / 10, "waited out the poll interval {asked} times in {OPENINGS} openings");
}
