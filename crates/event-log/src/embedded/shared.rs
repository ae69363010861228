//! The open log, as its publishers, readers and its maintenance thread share it.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::EmbeddedSettings;
use super::state::{Partition, State};
use super::storage::{Database, LogFile, PAGE_BYTES};
use super::writer::Writer;
use crate::{LogError, Positions, Record};

/// Kafka's default for one message, so that what is accepted here is accepted there.
const MAX_RECORD_BYTES: usize = 1_000_000;
/// Roughly what a commit writes beside its records: the page of each table it touches.
const COMMIT_OVERHEAD_BYTES: u64 = 4 * PAGE_BYTES;
/// How much goes to the write-ahead log before the maintenance thread moves it to the main file: each time is four syncs, two
/// of them while publishers wait. SQLite's own default is 1,000 pages of 4 KiB, done inside some unlucky commit.
pub(super) const CHECKPOINT_BYTES: u64 = 16 << 20;

/// What the maintenance thread is asked to do.
#[derive(Default)]
pub(super) struct Work {
    pub(super) stop: bool,
    pub(super) compact: bool,
    /// Bytes written since the write-ahead log was last moved to the main file, roughly.
    pub(super) unmoved_bytes: u64,
}

impl Work {
    pub(super) fn checkpoint_is_due(&self) -> bool {
        self.unmoved_bytes >= CHECKPOINT_BYTES
    }
}

pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) compaction_min_records: u64,
    pub(super) state: Mutex<State>,
    /// Signalled when records become visible.
    pub(super) appended: Condvar,
    /// Signalled when records become durable, and when a group's members change.
    pub(super) synced: Condvar,
    /// Taken before `state` where both are needed, and held over every commit.
    pub(super) writer: Mutex<Writer>,
    /// One compaction at a time.
    pub(super) compacting: Mutex<()>,
    pub(super) work: Mutex<Work>,
    pub(super) work_wanted: Condvar,
    /// Every connection has it, too: the last one to go closes the file.
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
            work_wanted: Condvar::new(),
            file,
        })
    }

    /// One more connection, to read with.
    pub(super) fn connect(&self) -> Result<Database, LogError> {
        Database::connect(&self.file, locked(&self.state).partition_count())
    }

    /// Makes a new publisher of `name` the only one, and returns its epoch and where the earlier ones came to. Whatever
    /// they made visible is in the file before this returns: a position never leaves out records that readers have seen.
    pub(super) fn open_publisher(&self, name: &Arc<str>) -> Result<(u64, Option<u64>), LogError> {
        let (epoch, last_batch) = {
            let mut state = locked(&self.state);
            let publisher = state.publishers.entry(Arc::clone(name)).or_default();
            publisher.epoch += 1;
            (publisher.epoch, state.last_batch())
        };
        self.flush(last_batch)?;
        let position = locked(&self.state).publishers.get(name).and_then(|publisher| publisher.position);
        Ok((epoch, position))
    }

    /// Shows `records` to readers, for the publisher of this name and epoch. Returns the number of the batch, to be flushed.
    pub(super) fn append(
        &self,
        name: &Arc<str>,
        epoch: u64,
        records: &[Record],
        position: u64,
    ) -> Result<u64, LogError> {
        if let Some(bytes) = records.iter().map(Record::bytes).find(|bytes| *bytes > MAX_RECORD_BYTES) {
            return Err(LogError::Refused(format!(
                "a record of {bytes} bytes; the event log takes up to {MAX_RECORD_BYTES}"
            )));
        }
        if i64::try_from(position).is_err() {
            return Err(LogError::Refused(format!("the position {position} does not fit into 63 bits")));
        }
        let number = {
            let mut state = locked(&self.state);
            if state.publishers.get(name).is_none_or(|publisher| publisher.epoch != epoch) {
                return Err(LogError::Fenced(format!("{name} was opened again")));
            }
            state.append(name, records, position)
        };
        self.appended.notify_all();
        Ok(number)
    }

    /// Brings everything up to the batch of this number to the file. Batches that wait for the writer together go in one
    /// transaction; one whose commit failed before goes with the next.
    pub(super) fn flush(&self, number: u64) -> Result<(), LogError> {
        let mut writer = locked(&self.writer);
        let batches: Vec<_> = {
            let state = locked(&self.state);
            if state.is_durable(number) {
                return Ok(());
            }
            state.pending.iter().cloned().collect()
        };
        writer.append(&batches)?;
        // Still under the writer's lock: the batches leave `pending` before anyone else can look for work there.
        let mut state = locked(&self.state);
        state.mark_durable(batches.len());
        let compact = state.partitions.iter().any(|partition| self.wants_compaction(partition));
        drop(state);
        drop(writer);
        self.synced.notify_all();
        let bytes: usize = batches.iter().flat_map(|batch| &batch.pieces).map(|piece| piece.bytes()).sum();
        self.ask_for_work(compact, bytes as u64 + COMMIT_OVERHEAD_BYTES);
        Ok(())
    }

    /// Compaction walks over all of the partition, so it waits until there is something to gain by it.
    pub(super) fn wants_compaction(&self, partition: &Partition) -> bool {
        let dirty = partition.dirty_records();
        dirty >= self.compaction_min_records.max(1) && dirty >= partition.clean_records
    }

    fn ask_for_work(&self, compact: bool, written_bytes: u64) {
        let mut work = locked(&self.work);
        work.compact |= compact;
        work.unmoved_bytes += written_bytes;
        if work.compact || work.checkpoint_is_due() {
            self.work_wanted.notify_one();
        }
    }

    /// Commits positions of a group: in the file, and in memory once they are there.
    pub(super) fn commit_group(&self, group: &str, positions: &Positions) -> Result<(), LogError> {
        let mut writer = locked(&self.writer);
        writer.store_group(group, positions)?;
        let mut state = locked(&self.state);
        if let Some(group) = state.groups.get_mut(group) {
            group.committed.extend(positions);
        }
        Ok(())
    }

    /// Where the partitions end for readers.
    pub(super) fn end_offsets(&self) -> Positions {
        (0..).zip(locked(&self.state).partitions.iter().map(|partition| partition.next_offset)).collect()
    }
}

/// Locks. A thread that panicked while it held one of these has left nothing half done that matters: what is visible is
/// appended in one step, and what is durable is the file's business.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
