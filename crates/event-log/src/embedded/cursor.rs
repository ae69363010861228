//! Reading: recent records come from a partition's tail in memory, older records from range scans of the file.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Condvar;

use super::chunk::Piece;
use super::shared::Shared;
use super::state::{Partition, State};
use super::storage::Database;
use crate::{LogError, Positions, RecordRef, deadline};

/// The most records one call reads from the file: enough to make the cost of starting a scan negligible.
const FILE_BATCH_RECORDS: usize = 8_192;
/// The most records one call takes from memory, except for the rest of its last piece. It bounds what a caller has to buffer.
const MEMORY_BATCH_RECORDS: usize = 1_024;

/// How far a cursor may read.
#[derive(Clone, Copy)]
pub(super) enum Until {
    /// The end of what is visible.
    Visible,
    /// The end of what is durable.
    Durable,
}

impl Until {
    fn end(self, partition: &Partition) -> u64 {
        match self {
            Until::Visible => partition.next_offset,
            Until::Durable => partition.durable_end,
        }
    }
}

/// A position in every partition, and a connection to read from the file.
pub(super) struct Cursor {
    database: Database,
    until: Until,
    /// The next offset to read, by partition.
    next: Vec<u64>,
    /// The partitions to read.
    assigned: Vec<u32>,
    /// The index in `assigned` to begin with. It moves with each call, so that no partition starves behind a busy one.
    turn: usize,
    /// What the current call reads from memory; kept for its allocation.
    from_memory: Vec<Arc<Piece>>,
    /// The partitions that the current call reads from the file, and up to which offset.
    from_file: Vec<(u32, u64)>,
}

impl Cursor {
    /// A cursor without partitions.
    pub(super) fn open(shared: &Shared, until: Until) -> Result<Cursor, LogError> {
        Ok(Cursor {
            database: shared.connect()?,
            until,
            next: Vec::new(),
            assigned: Vec::new(),
            turn: 0,
            from_memory: Vec::new(),
            from_file: Vec::new(),
        })
    }

    /// Reads `partitions` from the offsets that `position` returns. A position beyond the end of its partition becomes the start.
    pub(super) fn assign(&mut self, state: &State, partitions: Vec<u32>, position: impl Fn(u32) -> u64) {
        let checked = |(number, partition)| Some(position(number)).filter(|next| *next <= self.until.end(partition));
        self.next = (0..).zip(&state.partitions).map(|partition| checked(partition).unwrap_or(0)).collect();
        self.assigned = partitions;
    }

    /// The next offset to read of each assigned partition.
    pub(super) fn positions(&self) -> Positions {
        self.assigned.iter().map(|partition| (*partition, self.next[*partition as usize])).collect()
    }

    /// Waits up to `timeout` for records, and passes them to `apply`. Returns their number. `signal` announces records;
    /// `assign` runs before each look at the state and may change the assignment.
    pub(super) fn poll(
        &mut self,
        shared: &Shared,
        signal: &Condvar,
        timeout: Duration,
        mut assign: impl FnMut(&mut Cursor, &State),
        apply: &mut dyn FnMut(RecordRef<'_>),
    ) -> Result<usize, LogError> {
        let deadline = deadline(timeout);
        loop {
            let mut state = shared.state.lock();
            assign(self, &state);
            while !self.gather(&state) {
                if signal.wait_until(&mut state, deadline).timed_out() {
                    return Ok(0);
                }
                assign(self, &state);
            }
            drop(state);
            // Compaction may have left no record there.
            let count = self.read_gathered(apply)?;
            if count > 0 {
                return Ok(count);
            }
        }
    }

    /// Decides what to read next. Returns whether there is anything.
    fn gather(&mut self, state: &State) -> bool {
        self.from_memory.clear();
        self.from_file.clear();
        self.turn = self.turn.wrapping_add(1);
        let mut room = MEMORY_BATCH_RECORDS;
        for index in 0..self.assigned.len() {
            let number = self.assigned[(self.turn.wrapping_add(index)) % self.assigned.len()];
            let partition = &state.partitions[number as usize];
            let (next, end) = (self.next[number as usize], self.until.end(partition));
            if next >= end {
                continue;
            }
            let tail_start = partition.tail_start();
            if next < tail_start {
                self.from_file.push((number, tail_start.min(end)));
                continue;
            }
            for piece in partition.tail_from(next).take_while(|piece| piece.last < end) {
                if room == 0 {
                    break;
                }
                room = room.saturating_sub(piece.count());
                self.from_memory.push(Arc::clone(piece));
            }
        }
        !self.from_memory.is_empty() || !self.from_file.is_empty()
    }

    /// Passes what was gathered to `apply`, and advances with each record. Returns the number of records.
    fn read_gathered(&mut self, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError> {
        let mut count = 0;
        for piece in self.from_memory.drain(..) {
            let next = &mut self.next[piece.partition as usize];
            // This process has encoded them, so none is truncated.
            for record in piece.as_chunk().records().flatten().filter(|record| record.offset >= *next) {
                count += 1;
                apply(record);
            }
            *next = piece.last + 1;
        }
        let mut room = FILE_BATCH_RECORDS;
        for (partition, end) in self.from_file.drain(..) {
            if room == 0 {
                break;
            }
            let mut read = 0;
            let next = &mut self.next[partition as usize];
            let reached = self.database.scan(partition, (*next, end), room, &mut |record| {
                *next = record.offset + 1;
                read += 1;
                apply(record);
            })?;
            *next = reached;
            room -= read;
            count += read;
        }
        Ok(count)
    }
}
