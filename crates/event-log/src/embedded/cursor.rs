//! Reading in the embedded log: from memory what is still in a partition's tail, in range scans of the file what is not.

use std::sync::{Arc, Condvar, MutexGuard, PoisonError};
use std::time::Instant;

use super::chunk::Piece;
use super::shared::Shared;
use super::state::{Partition, State};
use super::storage::Database;
use crate::{LogError, Positions, RecordRef};

/// How many records one call hands over from the file: enough that the cost of starting a scan is lost in it.
const FILE_BATCH_RECORDS: usize = 8_192;
/// How many records one call takes from memory, and what is left of the last piece. It bounds what a caller has to keep of them.
const MEMORY_BATCH_RECORDS: usize = 1_024;

/// How far a cursor may read.
#[derive(Clone, Copy)]
pub(super) enum Until {
    /// The end of what is visible.
    Visible,
    /// The end of what is synced.
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

/// A place in every partition, and what it takes to read on from there.
pub(super) struct Cursor {
    database: Database,
    until: Until,
    /// The next offset to read, by partition.
    next: Vec<u64>,
    /// The partitions to read.
    assigned: Vec<u32>,
    /// Which of them to begin with; each call begins with another, so that none waits behind a busy one for ever.
    turn: usize,
    /// What a call gathered from memory; kept for its allocation.
    from_memory: Vec<Arc<Piece>>,
    /// Likewise: the partitions to read from the file, and up to where.
    from_file: Vec<(u32, u64)>,
}

impl Cursor {
    /// Reads from the start of the partitions it is assigned.
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

    /// Reads these partitions from now on.
    pub(super) fn assign(&mut self, partitions: Vec<u32>) {
        self.assigned = partitions;
    }

    /// Moves every partition to where `position` says; to its start where it has no record that far.
    pub(super) fn seek(&mut self, state: &State, mut position: impl FnMut(u32) -> u64) {
        self.next = (0..)
            .zip(&state.partitions)
            .map(|(number, partition)| match position(number) {
                to if to <= self.until.end(partition) => to,
                _beyond => 0,
            })
            .collect();
    }

    /// The next offset to read of a partition.
    pub(super) fn position(&self, partition: u32) -> u64 {
        self.next[partition as usize]
    }

    /// The next offset to read of each partition that is assigned.
    pub(super) fn positions(&self) -> Positions {
        self.assigned.iter().map(|partition| (*partition, self.position(*partition))).collect()
    }

    /// Looks what there is to read, and notes it for [`hand_over`](Cursor::hand_over). Returns whether there is anything.
    pub(super) fn gather(&mut self, state: &State) -> bool {
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
            let in_memory = partition.tail_start();
            if next < in_memory {
                self.from_file.push((number, in_memory.min(end)));
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

    /// Hands over what was gathered, and moves behind each record as it is handed over. Returns how many there were;
    /// none is possible, where compaction has left nothing.
    pub(super) fn hand_over(&mut self, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError> {
        let mut count = 0;
        for piece in self.from_memory.drain(..) {
            let next = &mut self.next[piece.partition as usize];
            // Put together in this process, so none of them is cut short.
            for record in piece.as_chunk().records().flatten() {
                if record.offset >= *next {
                    *next = record.offset + 1;
                    count += 1;
                    apply(record);
                }
            }
        }
        let mut room = FILE_BATCH_RECORDS;
        for (partition, end) in self.from_file.drain(..) {
            if room == 0 {
                break;
            }
            let mut handed_over = 0;
            let next = &mut self.next[partition as usize];
            let behind = self.database.scan(partition, (*next, end), room, &mut |record| {
                *next = record.offset + 1;
                handed_over += 1;
                apply(record);
            })?;
            *next = behind;
            room -= handed_over;
            count += handed_over;
        }
        Ok(count)
    }
}

/// Waits on `signal` until `deadline`. `None` when that has passed; no deadline is one too far off to be written down.
pub(super) fn wait<'a>(
    signal: &Condvar,
    state: MutexGuard<'a, State>,
    deadline: Option<Instant>,
) -> Option<MutexGuard<'a, State>> {
    let Some(deadline) = deadline else {
        return Some(signal.wait(state).unwrap_or_else(PoisonError::into_inner));
    };
    let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
    Some(signal.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0)
}
