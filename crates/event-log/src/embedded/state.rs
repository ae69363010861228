//! What the threads that use an embedded log share: the end of each partition in memory, and who publishes and reads.
//!
//! A record is visible to readers from when it is in a partition's tail, and durable once the batch it came with is
//! committed. Invariants:
//! - A partition's tail is its last records without a gap, in pieces as they came; only durable records leave it, from its front.
//! - An offset that was once visible never names another record while the process lives: a batch whose commit failed
//!   stays in `pending`, and goes to the file before or together with the next one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::chunk::{ChunkBuilder, Piece};
use super::layout::Contents;
use crate::{Positions, Record, partition_of_key};

/// What a partition's tail holds at most, beside records that are not durable yet: a reader that is a little behind is
/// served from memory, and one far behind from the file.
const TAIL_MAX_RECORDS: u64 = 4_096;
/// The same in bytes, for large records.
const TAIL_MAX_BYTES: usize = 2 << 20;
/// Chunks of fewer records, on average, are for compaction to make larger ones of: eight with so many events each about fill one.
const SMALL_CHUNK_RECORDS: u64 = 8;

/// What one call of `publish` brought.
pub(super) struct Batch {
    /// Counts batches, so that a publisher knows when its own is durable.
    pub(super) number: u64,
    pub(super) publisher: Arc<str>,
    pub(super) position: u64,
    /// Its records, each partition's in their order.
    pub(super) pieces: Vec<Arc<Piece>>,
}

pub(super) struct Partition {
    /// The last records. What is durable ends with a piece.
    tail: VecDeque<Arc<Piece>>,
    tail_bytes: usize,
    /// The next piece; kept for its allocation.
    builder: ChunkBuilder,
    /// The offset that the next record gets: the end of what is visible.
    pub(super) next_offset: u64,
    /// The end of what is durable.
    pub(super) durable_end: u64,
    /// Below this offset the file holds no key twice.
    pub(super) clean_end: u64,
    /// How many records the file holds below `clean_end`.
    pub(super) clean_records: u64,
    /// What is known of the durable records from `clean_end` on.
    pub(super) dirty: Dirty,
}

/// What compaction may have to do in the durable records that it has not seen.
#[derive(Clone, Copy, Default)]
pub(super) struct Dirty {
    /// How many of them may replace an earlier one.
    replacing: u64,
    /// How many commits they came with. Each leaves a chunk that may be a small one.
    commits: u64,
}

impl Dirty {
    /// Whether there is nothing to do in so many records.
    pub(super) fn is_clean(self, records: u64) -> bool {
        self.replacing == 0 && self.commits * SMALL_CHUNK_RECORDS <= records
    }

    /// What is left of it when there is nothing more to do for those that were `known` before.
    pub(super) fn without(self, known: Dirty) -> Dirty {
        Dirty { replacing: self.replacing - known.replacing, commits: self.commits - known.commits }
    }
}

impl Partition {
    /// The offset of the first record that is in memory; the file has those before it.
    pub(super) fn tail_start(&self) -> u64 {
        self.tail.front().map_or(self.next_offset, |piece| piece.first)
    }

    /// The pieces in memory from the one on that has the record at `offset`. Readers are near the end, so it is looked for
    /// from there.
    pub(super) fn tail_from(&self, offset: u64) -> impl Iterator<Item = &Arc<Piece>> {
        let count = self.tail.iter().rev().take_while(|piece| piece.last >= offset).count();
        self.tail.range(self.tail.len() - count..)
    }

    /// How many durable records no compaction has seen.
    pub(super) fn dirty_records(&self) -> u64 {
        self.durable_end - self.clean_end
    }

    /// Shows what was put together to readers.
    fn show(&mut self, number: u32) -> Option<Arc<Piece>> {
        let piece = Arc::new(self.builder.take_piece(number)?);
        self.tail_bytes += piece.bytes();
        self.tail.push_back(Arc::clone(&piece));
        Some(piece)
    }

    fn trim(&mut self) {
        while let Some(first) = self.tail.front()
            && first.last < self.durable_end
            && (self.next_offset - first.first > TAIL_MAX_RECORDS || self.tail_bytes > TAIL_MAX_BYTES)
        {
            self.tail_bytes -= first.bytes();
            self.tail.pop_front();
        }
    }
}

/// The publishers of one name.
#[derive(Default)]
pub(super) struct PublisherState {
    /// Which opening of the name may publish: the last one.
    pub(super) epoch: u64,
    /// The durable position.
    pub(super) position: Option<u64>,
}

/// One group of readers.
#[derive(Default)]
pub(super) struct Group {
    /// The members, in the order they came.
    pub(super) members: Vec<u64>,
    /// Grows when a member comes or goes.
    pub(super) generation: u64,
    /// The positions as committed.
    pub(super) committed: Positions,
}

/// Everything behind the one short-held lock. No file is touched while it is held.
pub(super) struct State {
    pub(super) partitions: Vec<Partition>,
    pub(super) publishers: HashMap<Arc<str>, PublisherState>,
    pub(super) groups: HashMap<String, Group>,
    /// Visible, and not durable yet.
    pub(super) pending: VecDeque<Arc<Batch>>,
    /// The number of the last batch made.
    last_batch: u64,
    /// The number of the last batch that is durable.
    durable_batch: u64,
    /// Where the next record without a key goes: to each partition in turn.
    keyless_turn: u32,
    /// Member ids are never used again.
    last_member: u64,
}

impl State {
    pub(super) fn new(contents: Contents) -> State {
        let partitions = contents
            .partitions
            .into_iter()
            .map(|stored| Partition {
                tail: VecDeque::new(),
                tail_bytes: 0,
                builder: ChunkBuilder::default(),
                next_offset: stored.next_offset,
                durable_end: stored.next_offset,
                clean_end: stored.clean_end,
                clean_records: stored.clean_records,
                // Of those from before nothing is known.
                dirty: Dirty { replacing: stored.next_offset.saturating_sub(stored.clean_end), commits: 0 },
            })
            .collect();
        let publishers = contents
            .publishers
            .into_iter()
            .map(|(name, position)| (Arc::from(name), PublisherState { epoch: 0, position: Some(position) }))
            .collect();
        let mut groups: HashMap<String, Group> = HashMap::new();
        for (group, partition, next_offset) in contents.groups {
            groups.entry(group).or_default().committed.insert(partition, next_offset);
        }
        State {
            partitions,
            publishers,
            groups,
            pending: VecDeque::new(),
            last_batch: 0,
            durable_batch: 0,
            keyless_turn: 0,
            last_member: 0,
        }
    }

    pub(super) fn partition_count(&self) -> u32 {
        self.partitions.len() as u32
    }

    /// Gives the records their places at the ends of their partitions, where readers see them. Returns the batch's
    /// number.
    pub(super) fn append(&mut self, publisher: &Arc<str>, records: &[Record], position: u64) -> u64 {
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
            if partition.builder.is_full() {
                pieces.extend(partition.show(number));
            }
        }
        for (number, partition) in (0..).zip(&mut self.partitions) {
            pieces.extend(partition.show(number));
        }
        self.last_batch += 1;
        let (number, publisher) = (self.last_batch, Arc::clone(publisher));
        self.pending.push_back(Arc::new(Batch { number, publisher, position, pieces }));
        self.last_batch
    }

    /// The number of the last batch made.
    pub(super) fn last_batch(&self) -> u64 {
        self.last_batch
    }

    /// Whether the batch of this number is in the file.
    pub(super) fn is_durable(&self, number: u64) -> bool {
        self.durable_batch >= number
    }

    /// Notes that the first `count` pending batches are in the file.
    pub(super) fn mark_durable(&mut self, count: usize) {
        let ends: Vec<_> = self.partitions.iter().map(|partition| partition.durable_end).collect();
        for batch in self.pending.drain(..count) {
            self.durable_batch = batch.number;
            self.publishers.entry(Arc::clone(&batch.publisher)).or_default().position = Some(batch.position);
            for piece in &batch.pieces {
                let partition = &mut self.partitions[piece.partition as usize];
                partition.durable_end = piece.last + 1;
                partition.dirty.replacing += piece.replacing;
            }
        }
        for (partition, before) in self.partitions.iter_mut().zip(ends) {
            partition.dirty.commits += u64::from(partition.durable_end > before);
            partition.trim();
        }
    }

    /// Adds a member to a group and returns its id.
    pub(super) fn join(&mut self, group: &str) -> u64 {
        self.last_member += 1;
        let group = self.groups.entry(group.to_owned()).or_default();
        group.members.push(self.last_member);
        group.generation += 1;
        self.last_member
    }

    /// Takes a member out of its group.
    pub(super) fn leave(&mut self, group: &str, member: u64) {
        if let Some(group) = self.groups.get_mut(group) {
            group.members.retain(|other| *other != member);
            group.generation += 1;
        }
    }
}
