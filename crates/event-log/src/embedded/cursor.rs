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
/// The most records one call takes from memory, except for the rest of the last piece. It bounds what a caller has to buffer.
const MEMORY_BATCH_RECORDS: usize = 1_024;

/// How far a cursor may read: to the end of what is visible, or of what is durable.
type End = fn(&Partition) -> u64;

/// A position in every partition, and a connection to read from the file.
pub(super) struct Cursor {
    database: Database,
    end: End,
    /// The next offset to read, by partition.
    next: Vec<u64>,
    /// The partitions to read.
    assigned: Vec<u32>,
    /// The index in `assigned` to begin with. It moves with each call, so that no partition starves behind a busy one.
    turn: usize,
}

/// Records of one partition to read.
enum Source {
    /// These pieces in memory.
    Memory(Vec<Arc<Piece>>),
    /// The file, up to this offset.
    File(u64),
}

impl Cursor {
    /// A cursor without partitions.
    pub(super) fn open(shared: &Shared, end: End) -> Result<Cursor, LogError> {
        Ok(Cursor { database: shared.connect()?, end, next: Vec::new(), assigned: Vec::new(), turn: 0 })
    }

    /// Reads `partitions` from the offsets that `position` returns. A position beyond the end of its partition becomes the start.
    pub(super) fn assign(&mut self, state: &State, partitions: Vec<u32>, position: impl Fn(u32) -> u64) {
        let checked = |(number, partition)| Some(position(number)).filter(|next| *next <= (self.end)(partition));
        self.next = (0..).zip(&state.partitions).map(|partition| checked(partition).unwrap_or(0)).collect();
        self.assigned = partitions;
    }

    /// The next offset to read of each assigned partition.
    pub(super) fn positions(&self) -> Positions {
        self.assigned.iter().map(|partition| (*partition, self.next[*partition as usize])).collect()
    }

    /// Waits up to `timeout` for records, and passes those of one partition to `apply`. Returns their number. `signal` announces records;
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
            let (partition, source) = loop {
                if let Some(found) = self.find(&state) {
                    break found;
                }
                if signal.wait_until(&mut state, deadline).timed_out() {
                    return Ok(0);
                }
                assign(self, &state);
            };
            drop(state);
            // Compaction may have left no record there.
            let count = self.read(partition, source, apply)?;
            if count > 0 {
                return Ok(count);
            }
        }
    }

    /// The next partition that has records to read, and where they are.
    fn find(&mut self, state: &State) -> Option<(u32, Source)> {
        self.turn = self.turn.wrapping_add(1);
        (0..self.assigned.len()).find_map(|index| {
            let number = self.assigned[self.turn.wrapping_add(index) % self.assigned.len()];
            let partition = &state.partitions[number as usize];
            let (next, end, tail_start) = (self.next[number as usize], (self.end)(partition), partition.tail_start());
            if next < end.min(tail_start) {
                return Some((number, Source::File(end.min(tail_start))));
            }
            let mut room = MEMORY_BATCH_RECORDS;
            let has_room = |piece: &&Arc<Piece>| {
                let is_wanted = room > 0 && piece.last < end;
                room = room.saturating_sub(piece.count());
                is_wanted
            };
            let pieces: Vec<_> = partition.tail_from(next).take_while(has_room).cloned().collect();
            (!pieces.is_empty()).then_some((number, Source::Memory(pieces)))
        })
    }

    /// Passes records to `apply`, and advances with each of them. Returns their number.
    fn read(
        &mut self,
        partition: u32,
        source: Source,
        apply: &mut dyn FnMut(RecordRef<'_>),
    ) -> Result<usize, LogError> {
        let (mut count, next) = (0, &mut self.next[partition as usize]);
        match source {
            Source::Memory(pieces) => {
                for piece in pieces {
                    // This process has encoded the records, so none is truncated.
                    for record in piece.as_chunk().records().flatten().filter(|record| record.offset >= *next) {
                        count += 1;
                        apply(record);
                    }
                    *next = piece.last + 1;
                }
            }
            Source::File(end) => {
                *next = self.database.scan(partition, (*next, end), FILE_BATCH_RECORDS, &mut |record| {
                    count += 1;
                    apply(record);
                })?;
            }
        }
        Ok(count)
    }
}
