//! A shard of the account view: its slots, and where in them an account is.

use std::slice;
use std::sync::atomic::{AtomicU32, Ordering};

use account_events::{AccountId, AccountStatus};
use process::provide_pages;

use super::{merge, unpack};

/// The slots of a segment.
const SEGMENT_SLOTS: usize = 64;

/// A shard grows when more than this share of its slots, in percent, is taken.
const MAX_LOAD_PERCENT: usize = 92;

/// A shard that grows gets so many times the segments, and one more at least.
const GROWTH: f64 = 1.1;

/// As many slots as its segments have; none at first.
pub(super) struct Shard {
    segments: Segments,
}

/// Where a shard's segments lie.
enum Segments {
    /// Each for itself, so that one that another shard has given back will do.
    Apart(Box<[Box<Segment>]>),
    /// In one piece, if the shard was made with all its accounts. What grows later fits where the piece was.
    Together(Box<[Segment]>),
}

/// An account, and a state that it was told to have.
pub(super) type Told = ([u32; 4], u32);

/// A shard, and how many of its accounts have each status.
pub(super) struct Counted {
    pub(super) shard: Shard,
    pub(super) by_status: [u64; AccountStatus::ALL.len()],
}

/// `[id, id, id, id, state]`; the state is 0 while it is free.
type Slot = [AtomicU32; 5];

/// As much as is allocated at once.
type Segment = [Slot; SEGMENT_SLOTS];

/// A slot in a checkpoint: its words, little endian.
const SLOT_BYTES: usize = size_of::<Slot>();

/// A segment in a checkpoint: its slots.
pub(super) const SEGMENT_BYTES: usize = SEGMENT_SLOTS * SLOT_BYTES;

impl Shard {
    pub(super) fn with_segments(count: usize) -> Self {
        Shard { segments: Segments::Apart((0..count).map(|_| Box::new(free_segment())).collect()) }
    }

    /// One that has room for `accounts` and lies in one piece, as large as if they had been added one by one; for `phase` see
    /// [`larger`].
    fn with_room(accounts: usize, phase: f64) -> Self {
        let mut count = 0;
        while exceeds_load(accounts, count) {
            count = larger(count, phase);
        }
        Shard { segments: Segments::Together(free_segments(count)) }
    }

    pub(super) fn slot_count(&self) -> usize {
        self.segment_count() * SEGMENT_SLOTS
    }

    fn segment_count(&self) -> usize {
        match &self.segments {
            Segments::Apart(segments) => segments.len(),
            Segments::Together(segments) => segments.len(),
        }
    }

    fn segment(&self, number: usize) -> Option<&Segment> {
        match &self.segments {
            Segments::Apart(segments) => segments.get(number).map(Box::as_ref),
            Segments::Together(segments) => segments.get(number),
        }
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        (0..self.segment_count()).filter_map(|number| self.segment(number)).flatten()
    }

    pub(super) fn slot(&self, number: usize) -> &Slot {
        match &self.segments {
            Segments::Apart(segments) => &segments[number / SEGMENT_SLOTS][number % SEGMENT_SLOTS],
            Segments::Together(segments) => &segments[number / SEGMENT_SLOTS][number % SEGMENT_SLOTS],
        }
    }

    /// Whether there is no room for one more beside so many.
    pub(super) fn is_full(&self, taken: usize) -> bool {
        exceeds_load(taken + 1, self.segment_count())
    }

    /// The slot of `id`, or else the free one where it belongs; the first where there is none at all.
    pub(super) fn find(&self, id: [u32; 4], place: u32) -> Result<usize, usize> {
        // The last word first: ids of the same time begin alike.
        self.probe(place, |slot| (0..4).rev().all(|word| slot[word].load(Ordering::Relaxed) == id[word]))
    }

    /// The free slot where an id belongs that is not there.
    pub(super) fn free_slot(&self, place: u32) -> usize {
        self.probe(place, |_| false).unwrap_or_else(|free| free)
    }

    /// The slot that `place` means.
    fn first(&self, place: u32) -> usize {
        ((u64::from(place) * self.slot_count() as u64) >> 32) as usize
    }

    /// The first slot from `place` on that `is_it`, or else the first free one.
    fn probe(&self, place: u32, is_it: impl Fn(&Slot) -> bool) -> Result<usize, usize> {
        let mut first = self.first(place);
        while let Some(segment) = self.segment(first / SEGMENT_SLOTS) {
            for (number, slot) in (first..).zip(&segment[first % SEGMENT_SLOTS..]) {
                // The id was written before the state, and is read after it.
                if slot[4].load(Ordering::Acquire) == 0 {
                    return Err(number);
                }
                if is_it(slot) {
                    return Ok(number);
                }
            }
            let next = first / SEGMENT_SLOTS + 1;
            first = if next == self.segment_count() { 0 } else { next * SEGMENT_SLOTS };
        }
        Err(0)
    }

    pub(super) fn take(&self, slot: usize, id: [u32; 4], state: u32) {
        let words = self.slot(slot);
        for (word, value) in words.iter().zip(id) {
            word.store(value, Ordering::Relaxed);
        }
        words[4].store(state, Ordering::Release);
    }

    /// The accounts, each with its state.
    pub(super) fn accounts(&self) -> impl Iterator<Item = ([u32; 4], u32)> {
        self.slots().map(read).filter(|(_, state)| *state != 0)
    }

    /// Whether a slot is free: a search may go on until it comes to one.
    pub(super) fn has_room(&self) -> bool {
        self.slots().any(|slot| read(slot).1 == 0)
    }

    /// The slots as they lie, for a checkpoint, while accounts go on being added.
    ///
    /// What is copied must be a shard that once was: a slot that was copied free, with accounts behind it that probed past it
    /// when it was taken later, would hide them. So the copying begins before a free slot and goes backwards, all the way
    /// round to that slot: of two accounts the one that the other had to probe past was there before, and is copied after.
    /// It is done when that slot is free to the last, since nothing has probed past it then.
    pub(super) fn copy_to(&self, bytes: &mut Vec<u8>) {
        self.copy_while(bytes, |_| ());
    }

    /// As [`copy_to`](Shard::copy_to), and calls `meanwhile` when a slot was copied, with its number.
    pub(super) fn copy_while(&self, bytes: &mut Vec<u8>, mut meanwhile: impl FnMut(usize)) {
        bytes.resize(self.segment_count() * SEGMENT_BYTES, 0);
        let (copied, _) = bytes.as_chunks_mut::<SLOT_BYTES>();
        let is_free = |number: &usize| self.slot(*number)[4].load(Ordering::Acquire) == 0;
        while let Some(gap) = (0..copied.len()).find(is_free) {
            for number in (0..gap).rev().chain((gap..copied.len()).rev()) {
                let ([a, b, c, d], state) = read(self.slot(number));
                let (words, _) = copied[number].as_chunks_mut::<4>();
                words.iter_mut().zip([a, b, c, d, state]).for_each(|(word, value)| *word = value.to_le_bytes());
                meanwhile(number);
            }
            if is_free(&gap) {
                return;
            }
        }
    }

    /// The shard that was copied, of which `read` reads all bytes, `length`, into the memory that it is given: the shard's own, since
    /// with copying them from elsewhere a start took half as long again.
    #[expect(unsafe_code, reason = "the standard library does not lend the bytes of atomic integers")]
    pub(super) fn read<E>(length: usize, read: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Shard, E> {
        let mut segments = free_segments(length / SEGMENT_BYTES);
        let (bytes, count) = (segments.as_mut_ptr().cast(), segments.len() * SEGMENT_BYTES);
        // SAFETY: the bytes of `segments`, all `count` of them: initialised, without padding, nobody else's until `read` returns; and
        // an atomic integer takes any.
        read(unsafe { slice::from_raw_parts_mut(bytes, count) })?;
        for word in segments.as_flattened_mut().as_flattened_mut() {
            *word = AtomicU32::new(u32::from_le(*word.get_mut()));
        }
        Ok(Shard { segments: Segments::Together(segments) })
    }

    /// Reads a word of the slot at `place`, so that it is in the processor's caches when it is looked at next.
    pub(super) fn touch(&self, place: u32) {
        if self.slot_count() > 0 {
            std::hint::black_box(self.slot(self.first(place))[4].load(Ordering::Relaxed));
        }
    }

    /// A larger one with the same accounts; for `phase` see [`larger`].
    pub(super) fn grown(&self, phase: f64, place: impl Fn(AccountId) -> u32) -> Shard {
        let grown = Shard::with_segments(larger(self.segment_count(), phase));
        for (id, state) in self.accounts() {
            grown.take(grown.free_slot(place(from_words(id))), id, state);
        }
        grown
    }
}

impl Counted {
    pub(super) fn of(shard: Shard) -> Self {
        let mut by_status = [0; AccountStatus::ALL.len()];
        shard.accounts().for_each(|(_, state)| by_status[unpack(state).status as usize] += 1);
        Counted { shard, by_status }
    }

    /// One of all these accounts, where those of one follow each other; for `phase` see [`larger`].
    pub(super) fn of_states(states: &[Told], phase: f64, place: impl Fn(AccountId) -> u32) -> Self {
        let accounts = || states.chunk_by(|(id, _), (next, _)| id == next);
        let shard = Shard::with_room(accounts().count(), phase);
        for told in accounts() {
            let state = told.iter().map(|(_, state)| *state).reduce(merge);
            if let (Some((id, _)), Some(state)) = (told.first(), state) {
                shard.take(shard.free_slot(place(from_words(*id))), *id, state);
            }
        }
        Counted::of(shard)
    }
}

fn free_segment() -> Segment {
    std::array::from_fn(|_| Default::default())
}

/// So many in one piece, whose pages are provided at once: with a call of the system's for each of them a checkpoint of ten million
/// accounts takes 0.10 s to read instead of 0.07.
fn free_segments(count: usize) -> Box<[Segment]> {
    let mut segments = Vec::with_capacity(count);
    provide_pages(segments.spare_capacity_mut());
    segments.extend((0..count).map(|_| free_segment()));
    segments.into()
}

/// Whether so many accounts are more than so many segments hold.
fn exceeds_load(accounts: usize, segments: usize) -> bool {
    accounts * 100 > segments * SEGMENT_SLOTS * MAX_LOAD_PERCENT
}

/// A slot's id and state. The id of a free one is nothing to go by: it may be half written.
fn read(slot: &Slot) -> ([u32; 4], u32) {
    let state = slot[4].load(Ordering::Acquire);
    let word = |number: usize| slot[number].load(Ordering::Relaxed);
    let id = if state == 0 { [0; 4] } else { [word(0), word(1), word(2), word(3)] };
    (id, state)
}

/// How many segments a shard has next: the least power of [`GROWTH`] that is more, where `phase`, from 0 to 1, is added to the
/// exponent. All shards of a table have about as many accounts; with a phase each, they grow one after the other, and what
/// is free in all of them together is always the mean, however many accounts there are.
fn larger(segments: usize, phase: f64) -> usize {
    let size = |step: f64| GROWTH.powf(step + phase) as usize;
    let step = ((segments + 1) as f64).log(GROWTH).floor() - 1.0;
    let sizes = [step, step + 1.0, step + 2.0].map(size);
    sizes.into_iter().find(|size| *size > segments).unwrap_or(segments + 1)
}

pub(super) fn words(id: AccountId) -> [u32; 4] {
    let (high, low) = id.0.as_u64_pair();
    [(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32]
}

pub(super) fn from_words([a, b, c, d]: [u32; 4]) -> AccountId {
    let pair = |high, low| u64::from(high) << 32 | u64::from(low);
    AccountId(uuid::Uuid::from_u64_pair(pair(a, b), pair(c, d)))
}
