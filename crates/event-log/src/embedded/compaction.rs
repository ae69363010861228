//! Compaction: the last record of each key stays, and so do all records without a key and all offsets.
//!
//! A partition is clean below some offset (no key occurs twice there) and dirty from it on. The maintenance thread compacts a
//! partition when [`is_due`] says so. A round reads dirty records until they have a bounded number of keys, remembers the last offset
//! of each key, and sweeps the partition from its start to the end of these records. The sweep removes every record that a
//! remembered one replaces, and merges small chunks.
//!
//! The sweep runs in short write transactions, so a publisher waits for one of them at most. It may stop after any of them: each
//! only removes records that a later, durable record replaces.

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::chunk::{Chunk, ChunkBuilder};
use super::shared::Shared;
use super::state::Partition;
use super::storage::{Database, PAGE_BYTES, garbled};
use crate::LogError;

/// The most keys of a round, some 50 MB. Each round sweeps the whole partition before it, so fewer rounds are better.
const ROUND_MAX_KEYS: usize = 1 << 19;
/// The most records of one read. It bounds how long a read keeps the write-ahead log from starting over.
const SCAN_RECORDS: usize = 4_096;
/// The most chunks that one write transaction replaces, which takes about a millisecond.
const RUN_MAX_CHUNKS: usize = 64;
/// The number of chunks worth merging into one although no record is removed.
const MERGE_MIN_CHUNKS: usize = 8;
/// The most bytes that a sweep writes between two WAL checkpoints.
const SWEEP_WAL_BYTES: usize = 16 << 20;
/// The most pages that one write transaction returns to the file system.
const VACUUM_PAGES: i64 = 16;
/// The free pages that stay in the file for new records: a megabyte.
const VACUUM_KEPT_PAGES: i64 = 64;

/// Whether a partition is worth compacting: at least `min_records` are dirty, and as many as are clean (Kafka's
/// `min.cleanable.dirty.ratio` of 0.5).
pub(super) fn is_due(partition: &Partition, min_records: u64) -> bool {
    let dirty = partition.dirty_records();
    dirty >= min_records.max(1) && dirty >= partition.clean_records
}

/// Compacts the partitions that are `wanted`, and returns free space to the file system.
pub(super) fn compact(
    shared: &Shared,
    stopped: &dyn Fn() -> bool,
    wanted: &dyn Fn(&Partition) -> bool,
) -> Result<(), LogError> {
    let _one_at_a_time = shared.compacting.lock();
    let mut database = shared.connect()?;
    let count = shared.state.lock().partition_count();
    for partition in 0..count {
        let is_wanted = wanted(&shared.state.lock().partitions[partition as usize]);
        if is_wanted {
            Compaction { shared, database: &mut database, partition, stopped }.run()?;
        }
    }
    while !stopped() && shared.writer.lock().vacuum(VACUUM_PAGES, VACUUM_KEPT_PAGES)? {}
    wal_checkpoint(shared, true)
}

/// Moves the write-ahead log to the database file and lets the write-ahead log start over. `truncate` also cuts both files to
/// their contents.
pub(super) fn wal_checkpoint(shared: &Shared, truncate: bool) -> Result<(), LogError> {
    let mut database = shared.connect()?;
    // It does not wait for readers: the next WAL checkpoint moves what a scan has kept.
    let mut run = |mode: &str| {
        database.run(|connection| {
            connection.busy_timeout(std::time::Duration::ZERO)?;
            Ok(connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))?)
        })
    };
    // The first step does most of the work beside the publishers. The second one moves what they have written meanwhile; without it
    // the write-ahead log would hardly ever start over.
    run("PASSIVE")?;
    let _no_writes = shared.writer.lock();
    run(if truncate { "TRUNCATE" } else { "PASSIVE" })
}

/// The last offset of each key of a round.
type LastOffsets = HashMap<Vec<u8>, u64>;

/// The compaction of one partition.
struct Compaction<'a> {
    shared: &'a Shared,
    database: &'a mut Database,
    partition: u32,
    stopped: &'a dyn Fn() -> bool,
}

impl Compaction<'_> {
    fn run(&mut self) -> Result<(), LogError> {
        let (mut from, end) = {
            let partition = &self.shared.state.lock().partitions[self.partition as usize];
            (partition.clean_end, partition.durable_end)
        };
        while from < end {
            let Some((last_offsets, to)) = self.last_offsets(from, end)? else { return Ok(()) };
            let Some(kept) = self.sweep(&last_offsets, to, end)? else { return Ok(()) };
            self.store_clean(to, kept)?;
            from = to;
        }
        Ok(())
    }

    /// Stores that the partition is clean up to `end` and has `records` there.
    fn store_clean(&mut self, end: u64, records: u64) -> Result<(), LogError> {
        self.shared.writer.lock().store_clean(self.partition, end, records)?;
        let mut state = self.shared.state.lock();
        let partition = &mut state.partitions[self.partition as usize];
        (partition.clean_end, partition.clean_records) = (end, records);
        Ok(())
    }

    /// The last offset of each key from `from` up to the returned offset; `None` when stopped.
    fn last_offsets(&mut self, mut from: u64, end: u64) -> Result<Option<(LastOffsets, u64)>, LogError> {
        let mut last_offsets = LastOffsets::new();
        while from < end && last_offsets.len() < ROUND_MAX_KEYS {
            if (self.stopped)() {
                return Ok(None);
            }
            from = self.database.scan(self.partition, (from, end), SCAN_RECORDS, &mut |record| {
                if let Some(key) = record.key {
                    last_offsets.insert(key.to_vec(), record.offset);
                }
            })?;
        }
        Ok(Some((last_offsets, from)))
    }

    /// Removes the replaced records below `to`. Returns how many are left there; `None` when stopped.
    fn sweep(&mut self, last_offsets: &LastOffsets, to: u64, durable_end: u64) -> Result<Option<u64>, LogError> {
        let (mut from, mut kept, mut written) = (0, 0, 0);
        loop {
            if (self.stopped)() {
                return Ok(None);
            }
            if written > SWEEP_WAL_BYTES {
                wal_checkpoint(self.shared, false)?;
                written = 0;
            }
            let mut run = self.next_run(from, last_offsets, to, durable_end)?;
            if run.count == 0 {
                return Ok(Some(kept));
            }
            if run.removed > 0 || run.count >= MERGE_MIN_CHUNKS {
                written += run.left.bytes() + PAGE_BYTES as usize * run.count;
                self.shared.writer.lock().replace(self.partition, run.first..=run.last, &mut run.left)?;
            }
            kept += run.kept;
            from = run.end;
        }
    }

    /// The chunks from `from` on that one chunk can replace; none at the end.
    fn next_run(&mut self, from: u64, last_offsets: &LastOffsets, to: u64, durable_end: u64) -> Result<Run, LogError> {
        let (mut run, partition) = (Run::default(), self.partition);
        self.database.chunks(partition, (from, to), &mut |chunk| {
            if chunk.last >= durable_end || run.is_full_with(&chunk) {
                return Ok(ControlFlow::Break(()));
            }
            run.add(&chunk, last_offsets, to).ok_or_else(|| garbled(partition, chunk.first))?;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(run)
    }
}

/// Consecutive chunks, and the chunk that replaces them.
#[derive(Default)]
struct Run {
    /// The first offsets of the first and the last chunk.
    first: u64,
    last: u64,
    count: usize,
    /// The offset after the last chunk.
    end: u64,
    /// The records that stay.
    left: ChunkBuilder,
    /// The number of records that are removed.
    removed: u64,
    /// The number of records that stay below the end of the sweep.
    kept: u64,
}

impl Run {
    /// Whether `chunk` belongs to the next run.
    fn is_full_with(&self, chunk: &Chunk<'_>) -> bool {
        self.count == RUN_MAX_CHUNKS || self.left.is_full_with(chunk.bytes.len()) && self.count > 0
    }

    /// Adds a chunk without its replaced records; `None` if the chunk is garbled.
    fn add(&mut self, chunk: &Chunk<'_>, last_offsets: &LastOffsets, to: u64) -> Option<()> {
        for record in chunk.records() {
            let record = record?;
            let last = record.key.and_then(|key| last_offsets.get(key));
            if last.is_some_and(|last| record.offset < *last) {
                self.removed += 1;
            } else {
                self.kept += u64::from(record.offset < to);
                self.left.push(record);
            }
        }
        if self.count == 0 {
            self.first = chunk.first;
        }
        self.last = chunk.first;
        self.count += 1;
        self.end = chunk.last + 1;
        Some(())
    }
}
