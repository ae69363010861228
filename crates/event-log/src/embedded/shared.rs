//! An open embedded log, as its publishers, readers and maintenance thread share it.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::EmbeddedSettings;
use super::compaction::is_due;
use super::maintenance::Work;
use super::state::State;
use super::storage::{Database, LogFile, PAGE_BYTES};
use super::writer::Writer;
use crate::{Committed, LogError, Positions, Record, position_out_of_range};

/// Kafka's default for one message: what this log accepts, Kafka accepts too.
const MAX_RECORD_BYTES: usize = 1_000_000;
/// What a commit writes beside its records, approximately: one page of each table it touches.
const COMMIT_OVERHEAD_BYTES: u64 = 4 * PAGE_BYTES;

pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) compaction_min_records: u64,
    pub(super) state: Mutex<State>,
    /// Signalled when records become visible.
    pub(super) appended: Condvar,
    /// Signalled when records become durable, and when the members of a group change.
    pub(super) synced: Condvar,
    /// Held during every write. Locked before `state` where both are needed.
    pub(super) writer: Mutex<Writer>,
    /// Held during a compaction.
    pub(super) compacting: Mutex<()>,
    pub(super) work: Mutex<Work>,
    /// Signalled when there is work for the maintenance thread.
    pub(super) work_requested: Condvar,
    pub(super) file: Arc<LogFile>,
}

impl Shared {
    pub(super) fn open(settings: &EmbeddedSettings) -> Result<Shared, LogError> {
        let file = LogFile::open(&settings.path)?;
        let contents = Database::create_or_open(&file, settings.partition_count)?.contents()?;
        let state = State::new(contents);
        let writer = Writer::open(&file, state.partition_count())?;
        Ok(Shared {
            path: settings.path.clone(),
            compaction_min_records: settings.compaction_min_records,
            state: Mutex::new(state),
            appended: Condvar::new(),
            synced: Condvar::new(),
            writer: Mutex::new(writer),
            compacting: Mutex::new(()),
            work: Mutex::new(Work::default()),
            work_requested: Condvar::new(),
            file,
        })
    }

    /// Opens a connection to read with.
    pub(super) fn connect(&self) -> Result<Database, LogError> {
        Database::connect(&self.file, self.state.lock().partition_count())
    }

    /// What the publishers called `name` have committed.
    pub(super) fn committed(&self, name: &str) -> Option<Committed> {
        self.state.lock().publishers.get(name).and_then(|publisher| publisher.committed.clone())
    }

    /// Starts a new epoch of the publisher `name`. Returns the epoch and what the earlier publishers committed. First commits
    /// what they have made visible, so that the position covers every record that readers have seen.
    pub(super) fn open_publisher(&self, name: &Arc<str>) -> Result<(u64, Option<Committed>), LogError> {
        let (epoch, last_batch) = {
            let mut state = self.state.lock();
            let publisher = state.publishers.entry(Arc::clone(name)).or_default();
            publisher.epoch += 1;
            (publisher.epoch, state.last_batch())
        };
        self.flush(last_batch)?;
        Ok((epoch, self.committed(name)))
    }

    /// Makes `records` visible. Returns the number of their batch, for [`flush`](Shared::flush). Refuses an epoch that is not the
    /// last one of `name`.
    pub(super) fn append(
        &self,
        name: &Arc<str>,
        epoch: u64,
        records: &[Record],
        (position, note): (u64, &Arc<str>),
    ) -> Result<u64, LogError> {
        if let Some(bytes) = records.iter().map(Record::bytes).find(|bytes| *bytes > MAX_RECORD_BYTES) {
            return Err(LogError::Refused(format!(
                "a record of {bytes} bytes; the event log takes up to {MAX_RECORD_BYTES}"
            )));
        }
        if i64::try_from(position).is_err() {
            return Err(position_out_of_range(position));
        }
        let number = {
            let mut state = self.state.lock();
            if state.publishers.get(name).is_none_or(|publisher| publisher.epoch != epoch) {
                return Err(LogError::Fenced(format!("{name} was opened again")));
            }
            state.append(name, records, (position, note))
        };
        self.appended.notify_all();
        Ok(number)
    }

    /// Commits every batch up to `number`. All pending batches share one transaction, including those whose commit failed before.
    pub(super) fn flush(&self, number: u64) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        let batches: Vec<_> = {
            let state = self.state.lock();
            if state.is_durable(number) {
                return Ok(());
            }
            state.pending.iter().cloned().collect()
        };
        writer.append(&batches)?;
        // The writer stays locked until the batches have left `pending`, so that nobody commits them twice.
        let mut state = self.state.lock();
        state.mark_durable(batches.len());
        let compact = state.partitions.iter().any(|partition| is_due(partition, self.compaction_min_records));
        drop(state);
        drop(writer);
        self.synced.notify_all();
        let bytes: usize = batches.iter().flat_map(|batch| &batch.pieces).map(|piece| piece.bytes.len()).sum();
        let mut work = self.work.lock();
        work.compact |= compact;
        work.wal_bytes += bytes as u64 + COMMIT_OVERHEAD_BYTES;
        if work.is_requested() {
            self.work_requested.notify_one();
        }
        Ok(())
    }

    /// Commits positions of a group.
    pub(super) fn commit_group(&self, name: &str, positions: &Positions) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        writer.store_group(name, positions)?;
        if let Some(group) = self.state.lock().groups.get_mut(name) {
            group.committed.extend(positions);
        }
        Ok(())
    }

    /// The visible end of each partition.
    pub(super) fn end_offsets(&self) -> Positions {
        (0..).zip(self.state.lock().partitions.iter().map(|partition| partition.next_offset)).collect()
    }
}
