//! The in-memory state of an embedded log: the tail of each partition, publishers and groups.
//!
//! A record is visible to readers once it is in its partition's tail, and durable once its batch is committed. Invariants:
//! - A tail is the last records of its partition without a gap. Only durable records are removed from it, the oldest first.
//! - While the process lives, an offset never refers to a second record: a batch whose commit failed stays in `pending` and is
//!   committed with the next one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::chunk::{ChunkBuilder, Piece};
use super::storage::Contents;
use crate::{Committed, Positions, Record, partition_of_key};

/// The most durable records in a tail. A reader that is behind the tail reads from the file.
const TAIL_MAX_RECORDS: u64 = 4_096;
/// The most bytes in a tail, apart from records that are not durable yet.
const TAIL_MAX_BYTES: usize = 2 << 20;

/// The records of one append.
pub(super) struct Batch {
    /// Numbers batches in order, so that a publisher can wait for its own.
    number: u64,
    pub(super) publisher: Arc<str>,
    pub(super) position: u64,
    pub(super) note: Arc<str>,
    /// Each partition's records in order.
    pub(super) pieces: Vec<Arc<Piece>>,
}

#[derive(Default)]
pub(super) struct Partition {
    /// The last records. Its durable records end with a piece.
    tail: VecDeque<Arc<Piece>>,
    tail_bytes: usize,
    /// Builds the next piece; kept for its allocation.
    builder: ChunkBuilder,
    /// The end of what is visible: the offset of the next record.
    pub(super) next_offset: u64,
    /// The end of what is durable.
    pub(super) durable_end: u64,
    /// The end of what is compacted: no key occurs twice below it.
    pub(super) clean_end: u64,
    /// The number of records below `clean_end`.
    pub(super) clean_records: u64,
}

impl Partition {
    /// The offset of the first record in memory.
    pub(super) fn tail_start(&self) -> u64 {
        self.tail.front().map_or(self.next_offset, |piece| piece.first)
    }

    /// The pieces in memory from the record at `offset` on. The search starts at the end, where readers are.
    pub(super) fn tail_from(&self, offset: u64) -> impl Iterator<Item = &Arc<Piece>> {
        let count = self.tail.iter().rev().take_while(|piece| piece.last >= offset).count();
        self.tail.range(self.tail.len() - count..)
    }

    /// The number of durable records that are not compacted.
    pub(super) fn dirty_records(&self) -> u64 {
        self.durable_end - self.clean_end
    }

    /// Moves the records of the builder to the tail.
    fn make_visible(&mut self, number: u32) -> Option<Arc<Piece>> {
        let piece = Arc::new(self.builder.take_piece(number)?);
        self.tail_bytes += piece.bytes.len();
        self.tail.push_back(Arc::clone(&piece));
        Some(piece)
    }

    fn trim(&mut self) {
        while let Some(first) = self.tail.front()
            && first.last < self.durable_end
            && (self.next_offset - first.first > TAIL_MAX_RECORDS || self.tail_bytes > TAIL_MAX_BYTES)
        {
            self.tail_bytes -= first.bytes.len();
            self.tail.pop_front();
        }
    }
}

/// The publishers of one name.
#[derive(Default)]
pub(super) struct PublisherState {
    /// The epoch of the publisher that was opened last: no other may publish.
    pub(super) epoch: u64,
    /// What is durable of the publishers' positions and notes.
    pub(super) committed: Option<Committed>,
}

/// A group of readers.
#[derive(Default)]
pub(super) struct Group {
    /// The members in the order in which they joined.
    members: Vec<u64>,
    /// Increases whenever a member joins or leaves.
    pub(super) generation: u64,
    pub(super) committed: Positions,
}

impl Group {
    /// The member that reads `partition`.
    pub(super) fn owner(&self, partition: u32) -> Option<u64> {
        let index = (partition as usize).checked_rem(self.members.len())?;
        self.members.get(index).copied()
    }
}

/// Everything that the log's main lock guards. The lock is never held over file access.
pub(super) struct State {
    pub(super) partitions: Vec<Partition>,
    pub(super) publishers: HashMap<Arc<str>, PublisherState>,
    pub(super) groups: HashMap<String, Group>,
    /// Batches that are visible and not durable.
    pub(super) pending: VecDeque<Arc<Batch>>,
    last_batch: u64,
    last_durable_batch: u64,
    /// The partition of the last record without a key. Such records go to each partition in turn.
    keyless_turn: u32,
    /// Member ids are never reused.
    last_member: u64,
}

impl State {
    pub(super) fn new(contents: Contents) -> State {
        let partitions = contents.partitions.into_iter().map(|stored| Partition {
            next_offset: stored.next_offset,
            durable_end: stored.next_offset,
            clean_end: stored.clean_end,
            clean_records: stored.clean_records,
            ..Partition::default()
        });
        let publishers = contents
            .publishers
            .into_iter()
            .map(|(name, committed)| (Arc::from(name), PublisherState { epoch: 0, committed: Some(committed) }));
        let mut groups: HashMap<String, Group> = HashMap::new();
        for (group, partition, next_offset) in contents.groups {
            groups.entry(group).or_default().committed.insert(partition, next_offset);
        }
        State {
            partitions: partitions.collect(),
            publishers: publishers.collect(),
            groups,
            pending: VecDeque::new(),
            last_batch: 0,
            last_durable_batch: 0,
            keyless_turn: 0,
            last_member: 0,
        }
    }

    pub(super) fn partition_count(&self) -> u32 {
        self.partitions.len() as u32
    }

    /// Makes the records visible at the ends of their partitions. Returns the number of the batch.
    pub(super) fn append(
        &mut self,
        publisher: &Arc<str>,
        records: &[Record],
        (position, note): (u64, &Arc<str>),
    ) -> u64 {
        let count = self.partition_count();
        let mut pieces = Vec::with_capacity(self.partitions.len());
        for record in records {
            let number = match &record.key {
                Some(key) => partition_of_key(key, count),
                None => {
                    self.keyless_turn = (self.keyless_turn + 1) % count;
                    self.keyless_turn
                }
            };
            let partition = &mut self.partitions[number as usize];
            partition.builder.push_record(partition.next_offset, record);
            partition.next_offset += 1;
            if partition.builder.is_full_with(0) {
                pieces.extend(partition.make_visible(number));
            }
        }
        for (number, partition) in (0..).zip(&mut self.partitions) {
            pieces.extend(partition.make_visible(number));
        }
        self.last_batch += 1;
        let (number, publisher, note) = (self.last_batch, Arc::clone(publisher), Arc::clone(note));
        self.pending.push_back(Arc::new(Batch { number, publisher, position, note, pieces }));
        number
    }

    pub(super) fn last_batch(&self) -> u64 {
        self.last_batch
    }

    pub(super) fn is_durable(&self, batch: u64) -> bool {
        self.last_durable_batch >= batch
    }

    /// Records that the first `count` pending batches are committed.
    pub(super) fn mark_durable(&mut self, count: usize) {
        for batch in self.pending.drain(..count) {
            self.last_durable_batch = batch.number;
            let committed = Committed { position: batch.position, note: batch.note.to_string() };
            self.publishers.entry(Arc::clone(&batch.publisher)).or_default().committed = Some(committed);
            for piece in &batch.pieces {
                self.partitions[piece.partition as usize].durable_end = piece.last + 1;
            }
        }
        self.partitions.iter_mut().for_each(Partition::trim);
    }

    /// Adds a member to a group and returns its id.
    pub(super) fn join(&mut self, group: &str) -> u64 {
        self.last_member += 1;
        let group = self.groups.entry(group.to_owned()).or_default();
        group.members.push(self.last_member);
        group.generation += 1;
        self.last_member
    }

    /// Removes a member from its group.
    pub(super) fn leave(&mut self, group: &str, member: u64) {
        if let Some(group) = self.groups.get_mut(group) {
            group.members.retain(|other| *other != member);
            group.generation += 1;
        }
    }
}
