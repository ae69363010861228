//! One shard of the account view: a hash table with open addressing and linear probing.
//!
//! One writer adds accounts; readers never wait. A slot's state is written after its id and read before it, and an id never
//! changes, so a reader that sees a state sees the id that belongs to it.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use account_events::{AccountId, AccountStatus};

use super::unpack;

/// Slots of a segment. All segments have one size, so the allocator reuses the memory of a shard that was replaced.
const SEGMENT_SLOTS: usize = 64;

/// A shard with a greater share of its slots taken, in percent, is replaced by a larger one.
const MAX_LOAD_PERCENT: usize = 92;

/// A larger shard has one segment more for so many that it has.
const GROWTH_DIVISOR: usize = 10;

/// An account id as the words of a slot.
pub(super) type IdWords = [u32; 4];

/// `[id, id, id, id, state]`; the state is 0 while the slot is free.
type Slot = [AtomicU32; 5];

type Segment = [Slot; SEGMENT_SLOTS];

/// Bytes of a slot in a checkpoint: its words in little-endian order.
const SLOT_BYTES: usize = size_of::<Slot>();

/// Bytes of a segment in a checkpoint.
pub(super) const SEGMENT_BYTES: usize = SEGMENT_SLOTS * SLOT_BYTES;

/// A table of a fixed number of slots.
pub(super) struct Shard {
    segments: Box<[Box<Segment>]>,
    /// How many slots are taken. Only the writer uses it.
    taken: AtomicUsize,
}

impl Shard {
    fn with_segments(count: usize) -> Self {
        let free_segment = || Box::new(std::array::from_fn(|_| Slot::default()));
        Shard { segments: (0..count).map(|_| free_segment()).collect(), taken: AtomicUsize::new(0) }
    }

    /// An empty shard as large as one that has grown to `accounts`.
    pub(super) fn with_capacity(accounts: usize) -> Self {
        let mut segments = 0;
        while exceeds_load(accounts, segments) {
            segments = larger(segments);
        }
        Shard::with_segments(segments)
    }

    /// A larger shard with the same accounts. `place` returns the place of an id, as [`find`](Shard::find) takes it.
    pub(super) fn grown(&self, place: impl Fn(AccountId) -> u32) -> Shard {
        let grown = Shard::with_segments(larger(self.segments.len()));
        for (id, state) in self.accounts() {
            grown.insert(grown.free_slot(place(from_words(id))), id, state);
        }
        grown
    }

    /// The shard of which [`copy_to`](Shard::copy_to) made `bytes`, a multiple of [`SEGMENT_BYTES`].
    pub(super) fn from_bytes(bytes: &[u8]) -> Shard {
        let mut shard = Shard::with_segments(bytes.len() / SEGMENT_BYTES);
        let (values, _) = bytes.as_chunks::<4>();
        for (word, value) in shard.slots().flatten().zip(values) {
            word.store(u32::from_le_bytes(*value), Ordering::Relaxed);
        }
        *shard.taken.get_mut() = shard.accounts().count();
        shard
    }

    pub(super) fn slot_count(&self) -> usize {
        self.segments.len() * SEGMENT_SLOTS
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.segments.iter().flat_map(|segment| segment.iter())
    }

    fn slot(&self, number: usize) -> &Slot {
        &self.segments[number / SEGMENT_SLOTS][number % SEGMENT_SLOTS]
    }

    /// The state of the account in a slot that is taken.
    pub(super) fn state(&self, slot: usize) -> &AtomicU32 {
        &self.slot(slot)[4]
    }

    /// Whether one more account exceeds the maximum load.
    pub(super) fn is_full(&self) -> bool {
        exceeds_load(self.taken.load(Ordering::Relaxed) + 1, self.segments.len())
    }

    /// The slot of `id`, or `Err` with the free slot where it belongs. A shard without slots gives `Err(0)`.
    pub(super) fn find(&self, id: IdWords, place: u32) -> Result<usize, usize> {
        // The last word first: ids of the same time begin alike.
        self.probe(place, |slot| (0..4).rev().all(|word| slot[word].load(Ordering::Relaxed) == id[word]))
    }

    /// The free slot where an id belongs that the shard does not have.
    pub(super) fn free_slot(&self, place: u32) -> usize {
        self.probe(place, |_| false).unwrap_or_else(|free| free)
    }

    /// The first slot from `place` on for which `matches` holds, or `Err` with the first free slot.
    fn probe(&self, place: u32, matches: impl Fn(&Slot) -> bool) -> Result<usize, usize> {
        let count = self.slot_count();
        if count == 0 {
            return Err(0);
        }
        let mut number = ((u64::from(place) * count as u64) >> 32) as usize;
        loop {
            let slot = self.slot(number);
            // The id was written before the state, so it is read after the state.
            if slot[4].load(Ordering::Acquire) == 0 {
                return Err(number);
            }
            if matches(slot) {
                return Ok(number);
            }
            number = if number + 1 == count { 0 } else { number + 1 };
        }
    }

    /// Adds an account in a free slot.
    pub(super) fn insert(&self, slot: usize, id: IdWords, state: u32) {
        let words = self.slot(slot);
        for (word, value) in words.iter().zip(id) {
            word.store(value, Ordering::Relaxed);
        }
        words[4].store(state, Ordering::Release);
        self.taken.store(self.taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// The accounts, each with its state.
    pub(super) fn accounts(&self) -> impl Iterator<Item = (IdWords, u32)> {
        self.slots().map(read).filter(|(_, state)| *state != 0)
    }

    /// How many accounts have each status, in the order of [`AccountStatus::ALL`].
    pub(super) fn count_by_status(&self) -> [u64; AccountStatus::ALL.len()] {
        let mut counts = [0; AccountStatus::ALL.len()];
        self.accounts().for_each(|(_, state)| counts[unpack(state).status as usize] += 1);
        counts
    }

    /// Whether a slot is free. A search in a shard without a free slot might not end.
    pub(super) fn has_room(&self) -> bool {
        self.slots().any(|slot| read(slot).1 == 0)
    }

    /// Copies the slots for a checkpoint while the writer adds accounts.
    ///
    /// The copy must hide no account: a slot that was copied while it was free hides the accounts that probed past it later.
    /// So the copying starts at a free slot and goes backwards around the shard: of two accounts, the one that the other
    /// probed past is older, and is copied later. The copy is complete if the first slot is still free at the end, since no
    /// account has probed past it. Otherwise the copying starts again.
    pub(super) fn copy_to(&self, bytes: &mut Vec<u8>) {
        self.copy_while(bytes, |_| ());
    }

    /// As [`copy_to`](Shard::copy_to). Calls `copied` with the number of each slot after it is copied.
    pub(super) fn copy_while(&self, bytes: &mut Vec<u8>, mut copied: impl FnMut(usize)) {
        bytes.resize(self.segments.len() * SEGMENT_BYTES, 0);
        let (copies, _) = bytes.as_chunks_mut::<SLOT_BYTES>();
        let is_free = |number: &usize| self.state(*number).load(Ordering::Acquire) == 0;
        while let Some(gap) = (0..copies.len()).find(is_free) {
            for number in (0..gap).rev().chain((gap..copies.len()).rev()) {
                let ([a, b, c, d], state) = read(self.slot(number));
                let (words, _) = copies[number].as_chunks_mut::<4>();
                words.iter_mut().zip([a, b, c, d, state]).for_each(|(word, value)| *word = value.to_le_bytes());
                copied(number);
            }
            if is_free(&gap) {
                return;
            }
        }
    }
}

/// Whether `accounts` are more than `segments` may hold.
fn exceeds_load(accounts: usize, segments: usize) -> bool {
    accounts * 100 > segments * SEGMENT_SLOTS * MAX_LOAD_PERCENT
}

/// How many segments a shard of `segments` grows to.
fn larger(segments: usize) -> usize {
    segments + segments / GROWTH_DIVISOR + 1
}

/// A slot's id and state. The id of a free slot may be half written and is returned as 0.
fn read(slot: &Slot) -> (IdWords, u32) {
    let state = slot[4].load(Ordering::Acquire);
    let word = |number: usize| slot[number].load(Ordering::Relaxed);
    let id = if state == 0 { [0; 4] } else { [word(0), word(1), word(2), word(3)] };
    (id, state)
}

pub(super) fn words(id: AccountId) -> IdWords {
    let (high, low) = id.0.as_u64_pair();
    [(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32]
}

pub(super) fn from_words([a, b, c, d]: IdWords) -> AccountId {
    let pair = |high, low| u64::from(high) << 32 | u64::from(low);
    AccountId(uuid::Uuid::from_u64_pair(pair(a, b), pair(c, d)))
}
