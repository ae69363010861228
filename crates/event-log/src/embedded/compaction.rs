//! Compaction: of each key only the last record stays; records without a key all stay, and so do all offsets.
//!
//! A partition is compacted up to some offset ("clean": no key occurs twice below it) and gets new, dirty records behind
//! that. One round takes as many dirty records as have a bounded number of keys, notes the last offset of each key, and
//! then walks over the partition from its start to the end of those records and removes what is older. Chunks that lose a
//! record, or are many small ones, become one on the way. Dirty records of which each is known to be the first of its key are
//! clean as they are, if their chunks are not small. It works in small write transactions, so a publisher waits for
//! one of them at most, and can stop after any: each one only removes records that a later, durable one replaces. What it
//! writes is moved to the main file now and then, so that the write-ahead log does not grow with the partition.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::ops::ControlFlow;

use siphasher::sip128::SipHasher13;

use super::chunk::{Chunk, ChunkBuilder};
use super::shared::{Shared, locked};
use super::storage::{Database, PAGE_BYTES, garbled};
use crate::LogError;

/// How many keys one round may note, in some 40 MB. A round walks over all of the partition before it, so the fewer the better.
const ROUND_MAX_KEYS: usize = 1 << 20;
/// How many records are read in one go. It bounds how long a read keeps the write-ahead log from starting over.
const SCAN_RECORDS: usize = 4_096;
/// How many chunks one write transaction may replace by one: about a millisecond.
const RUN_MAX_CHUNKS: usize = 64;
/// So many chunks that would fit in one are worth being made one, even if none of them loses a record.
const MANY_CHUNKS: usize = 8;
/// What is moved to the main file at once while a partition is walked over, and about what a chunk that is removed writes.
const UNMOVED_MAX_BYTES: usize = 16 << 20;
/// How many pages one write transaction gives back.
const VACUUM_PAGES: u64 = 16;
/// Free pages that stay in the file for the records to come: a megabyte.
const VACUUM_KEPT_PAGES: u64 = 64;

/// Compacts every partition.
pub(super) fn compact_all(shared: &Shared, stopped: &dyn Fn() -> bool) -> Result<(), LogError> {
    compact(shared, stopped, &|_| true)
}

/// Compacts the partitions that are worth it.
pub(super) fn compact_due(shared: &Shared, stopped: &dyn Fn() -> bool) -> Result<(), LogError> {
    compact(shared, stopped, &|partition| shared.wants_compaction(&locked(&shared.state).partitions[partition]))
}

fn compact(shared: &Shared, stopped: &dyn Fn() -> bool, wanted: &dyn Fn(usize) -> bool) -> Result<(), LogError> {
    let _one_at_a_time = locked(&shared.compacting);
    let mut database = shared.connect()?;
    let count = locked(&shared.state).partition_count();
    for partition in (0..count).filter(|partition| wanted(*partition as usize)) {
        let mut round = Round { shared, database: &mut database, partition, stopped };
        round.run()?;
    }
    while !stopped() && locked(&shared.writer).vacuum(VACUUM_PAGES, VACUUM_KEPT_PAGES)? {}
    checkpoint(shared, true)
}

/// Moves the write-ahead log to the main file, and has it start over. With `give_back` both files are cut to what they hold.
pub(super) fn checkpoint(shared: &Shared, give_back: bool) -> Result<(), LogError> {
    let mut database = shared.connect()?;
    // Without waiting: a reader in the middle of a scan only means that the rest is moved next time.
    let mut run = |mode: &str| {
        database.run(|connection| {
            connection.busy_timeout(std::time::Duration::ZERO)?;
            Ok(connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))?)
        })
    };
    // The slow part goes beside the publishers; what is left for the second step is what they wrote meanwhile. Without that step
    // the log would hardly ever be moved whole, and so grow.
    run("PASSIVE")?;
    let _nobody_writes = locked(&shared.writer);
    run(if give_back { "TRUNCATE" } else { "PASSIVE" })
}

/// The last offset of each key of a round. Kafka's cleaner, too, goes by the hashes of keys: in 128 bits, under a key of this
/// round's own, no two of them meet.
struct LastOffsets {
    hasher: SipHasher13,
    offsets: HashMap<u128, u64, BuildHasherDefault<Hashed>>,
}

/// Leaves a hash as it is.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, hash: &[u8]) {
        self.0 = hash.first_chunk().map_or(0, |part| u64::from_ne_bytes(*part));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl LastOffsets {
    fn new() -> Self {
        let random = RandomState::new();
        let hasher = SipHasher13::new_with_keys(random.hash_one(1), random.hash_one(2));
        LastOffsets { hasher, offsets: HashMap::default() }
    }

    fn note(&mut self, key: &[u8], offset: u64) {
        self.offsets.insert(self.hasher.hash(key).into(), offset);
    }

    fn get(&self, key: &[u8]) -> Option<u64> {
        self.offsets.get(&self.hasher.hash(key).into()).copied()
    }
}

/// The compaction of one partition.
struct Round<'a> {
    shared: &'a Shared,
    database: &'a mut Database,
    partition: u32,
    stopped: &'a dyn Fn() -> bool,
}

impl Round<'_> {
    fn run(&mut self) -> Result<(), LogError> {
        let (from, end, records, dirty) = {
            let state = locked(&self.shared.state);
            let partition = &state.partitions[self.partition as usize];
            let records = partition.clean_records + partition.dirty_records();
            (partition.clean_end, partition.durable_end, records, partition.dirty)
        };
        match dirty.is_clean(end - from) {
            // Most accounts are created and never changed: all of the log would be read for nothing.
            true => self.note_clean(end, records)?,
            false => self.clean(from, end)?,
        }
        let mut state = locked(&self.shared.state);
        let partition = &mut state.partitions[self.partition as usize];
        // Where it was stopped, what is left is no cleaner than it was.
        if partition.clean_end == end {
            partition.dirty = partition.dirty.without(dirty);
        }
        Ok(())
    }

    fn clean(&mut self, mut from: u64, end: u64) -> Result<(), LogError> {
        while from < end {
            let Some((last_offsets, to)) = self.note_keys(from, end)? else { return Ok(()) };
            let Some(kept) = self.sweep(&last_offsets, to, end)? else { return Ok(()) };
            self.note_clean(to, kept)?;
            from = to;
        }
        Ok(())
    }

    /// Notes that the partition is clean up to `end`, and has so many records there.
    fn note_clean(&mut self, end: u64, records: u64) -> Result<(), LogError> {
        locked(&self.shared.writer).store_clean(self.partition, end, records)?;
        let mut state = locked(&self.shared.state);
        let partition = &mut state.partitions[self.partition as usize];
        (partition.clean_end, partition.clean_records) = (end, records);
        Ok(())
    }

    /// The last offset of each key from `from` on, up to the returned position; or nothing when stopped.
    fn note_keys(&mut self, mut from: u64, end: u64) -> Result<Option<(LastOffsets, u64)>, LogError> {
        let mut last_offsets = LastOffsets::new();
        while from < end && last_offsets.offsets.len() < ROUND_MAX_KEYS {
            if (self.stopped)() {
                return Ok(None);
            }
            from = self.database.scan(self.partition, (from, end), SCAN_RECORDS, &mut |record| {
                if let Some(key) = record.key {
                    last_offsets.note(key, record.offset);
                }
            })?;
        }
        Ok(Some((last_offsets, from)))
    }

    /// Removes the records below `to` that a noted one replaces. Returns how many are left, or nothing when stopped.
    fn sweep(&mut self, last_offsets: &LastOffsets, to: u64, durable_end: u64) -> Result<Option<u64>, LogError> {
        let (mut next, mut kept, mut written) = (Run::default(), 0, 0);
        loop {
            if (self.stopped)() {
                return Ok(None);
            }
            if written > UNMOVED_MAX_BYTES {
                checkpoint(self.shared, false)?;
                written = 0;
            }
            let Some(mut run) = self.gather(&mut next, last_offsets, to, durable_end)? else { break };
            if run.removed > 0 || run.count >= MANY_CHUNKS {
                written += run.left.bytes() + PAGE_BYTES as usize * run.count;
                locked(&self.shared.writer).replace(self.partition, run.first..=run.last, &mut run.left)?;
            }
            kept += run.kept;
        }
        Ok(Some(kept))
    }

    /// The next chunks that one chunk can replace, or nothing at the end. `next` has the first of them, if it has been read, and gets
    /// the first of those behind them: no chunk is read twice.
    fn gather(
        &mut self,
        next: &mut Run,
        last_offsets: &LastOffsets,
        to: u64,
        durable_end: u64,
    ) -> Result<Option<Run>, LogError> {
        let (mut run, partition) = (std::mem::take(next), self.partition);
        self.database.chunks(partition, (run.behind, to), &mut |chunk| {
            if chunk.last >= durable_end {
                return Ok(ControlFlow::Break(()));
            }
            let is_full = run.is_full_with(&chunk);
            let taking = if is_full { &mut *next } else { &mut run };
            taking.add(&chunk, last_offsets, to).ok_or_else(|| garbled(partition, chunk.first))?;
            Ok(if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        next.behind = next.behind.max(run.behind);
        Ok((run.count > 0).then_some(run))
    }
}

/// Chunks that follow each other, and what one takes in their place.
#[derive(Default)]
struct Run {
    /// Where the first and the last of them begin.
    first: u64,
    last: u64,
    count: usize,
    /// The offset behind the last of them.
    behind: u64,
    /// Their records, without those that are replaced.
    left: ChunkBuilder,
    /// How many records are replaced.
    removed: u64,
    /// How many are left below the end of the sweep.
    kept: u64,
}

impl Run {
    /// Whether `chunk` is for the next one.
    fn is_full_with(&self, chunk: &Chunk<'_>) -> bool {
        self.count == RUN_MAX_CHUNKS || self.left.is_full_with(chunk.bytes.len()) && self.count > 0
    }

    /// Adds the records of `chunk` that no noted one replaces; nothing if it is garbled.
    fn add(&mut self, chunk: &Chunk<'_>, last_offsets: &LastOffsets, to: u64) -> Option<()> {
        for record in chunk.records() {
            let record = record?;
            let last = record.key.and_then(|key| last_offsets.get(key));
            if last.is_some_and(|last| record.offset < last) {
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
        self.behind = chunk.last + 1;
        Some(())
    }
}
