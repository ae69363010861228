//! What the threads that use an embedded log share: the end of each partition in memory, and who publishes and reads.
//!
//! A record is visible to readers from when it is in a partition's tail, and durable once the batch it came with is
//! committed. Invariants:
//! - A partition's tail is its last records without a gap; only durable records leave it, from its front.
//! - An offset that was once visible never names another record while the process lives: a batch whose commit failed
//!   stays in `pending`, and goes to the file before or together with the next one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::layout::Contents;
use crate::record::{Headers, RecordRef};
use crate::{Positions, Record, partition_of_key};

/// What a partition's tail holds at most, beside records that are not durable yet: a reader that is a little behind is
/// served from memory, and one far behind from the file.
const TAIL_MAX_RECORDS: usize = 16_384;
/// The same in bytes, for large records.
const TAIL_MAX_BYTES: usize = 8 << 20;

/// A record in memory.
pub(super) struct TailRecord {
    pub(super) offset: u64,
    key_bytes: Option<usize>,
    value_bytes: Option<usize>,
    /// Key, value and headers, one behind the other.
    contents: Box<[u8]>,
}

impl TailRecord {
    pub(super) fn new(record: &Record) -> TailRecord {
        let [key, value] = [&record.key, &record.value].map(Option::as_deref);
        TailRecord {
            offset: 0,
            key_bytes: key.map(<[u8]>::len),
            value_bytes: value.map(<[u8]>::len),
            contents: [key.unwrap_or_default(), value.unwrap_or_default(), record.headers.as_encoded()].concat().into(),
        }
    }

    fn key_end(&self) -> usize {
        self.key_bytes.unwrap_or(0)
    }

    fn value_end(&self) -> usize {
        self.key_end() + self.value_bytes.unwrap_or(0)
    }

    pub(super) fn key(&self) -> Option<&[u8]> {
        self.key_bytes.map(|_| &self.contents[..self.key_end()])
    }

    pub(super) fn value(&self) -> Option<&[u8]> {
        self.value_bytes.map(|_| &self.contents[self.key_end()..self.value_end()])
    }

    /// Encoded, as in the file.
    pub(super) fn headers(&self) -> &[u8] {
        &self.contents[self.value_end()..]
    }

    pub(super) fn as_record(&self, partition: u32) -> RecordRef<'_> {
        RecordRef {
            partition,
            offset: self.offset,
            key: self.key(),
            value: self.value(),
            headers: Headers::Encoded(self.headers()),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.contents.len()
    }
}

/// What one call of `publish` brought.
pub(super) struct Batch {
    /// Counts batches, so that a publisher knows when its own is durable.
    pub(super) number: u64,
    pub(super) publisher: Arc<str>,
    pub(super) position: u64,
    /// Each with its partition.
    pub(super) records: Vec<(u32, Arc<TailRecord>)>,
}

pub(super) struct Partition {
    /// The last records.
    pub(super) tail: VecDeque<Arc<TailRecord>>,
    tail_bytes: usize,
    /// The offset that the next record gets: the end of what is visible.
    pub(super) next_offset: u64,
    /// The end of what is durable.
    pub(super) durable_end: u64,
    /// Below this offset the file holds no key twice.
    pub(super) clean_end: u64,
    /// How many records the file holds below `clean_end`.
    pub(super) clean_records: u64,
}

impl Partition {
    /// The offset of the first record that is in memory; the file has those before it.
    pub(super) fn tail_start(&self) -> u64 {
        self.next_offset - self.tail.len() as u64
    }

    /// How many durable records no compaction has seen.
    pub(super) fn dirty_records(&self) -> u64 {
        self.durable_end - self.clean_end
    }

    fn trim(&mut self) {
        while self.tail_start() < self.durable_end
            && (self.tail.len() > TAIL_MAX_RECORDS || self.tail_bytes > TAIL_MAX_BYTES)
        {
            let Some(record) = self.tail.pop_front() else { return };
            self.tail_bytes -= record.bytes();
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
                next_offset: stored.next_offset,
                durable_end: stored.next_offset,
                clean_end: stored.clean_end,
                clean_records: stored.clean_records,
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
    pub(super) fn append(&mut self, publisher: &Arc<str>, records: Vec<TailRecord>, position: u64) -> u64 {
        let count = self.partition_count();
        let records = records
            .into_iter()
            .map(|mut record| {
                let number = match record.key() {
                    Some(key) => partition_of_key(key, count),
                    None => {
                        self.keyless_turn = (self.keyless_turn + 1) % count;
                        self.keyless_turn
                    }
                };
                let partition = &mut self.partitions[number as usize];
                record.offset = partition.next_offset;
                let record = Arc::new(record);
                partition.next_offset += 1;
                partition.tail_bytes += record.bytes();
                partition.tail.push_back(Arc::clone(&record));
                (number, record)
            })
            .collect();
        self.last_batch += 1;
        self.pending.push_back(Arc::new(Batch {
            number: self.last_batch,
            publisher: Arc::clone(publisher),
            position,
            records,
        }));
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
        for batch in self.pending.drain(..count) {
            self.durable_batch = batch.number;
            self.publishers.entry(Arc::clone(&batch.publisher)).or_default().position = Some(batch.position);
            for (partition, record) in &batch.records {
                self.partitions[*partition as usize].durable_end = record.offset + 1;
            }
        }
        for partition in &mut self.partitions {
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
