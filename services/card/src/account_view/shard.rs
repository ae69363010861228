//! A shard of the account view: its slots, and where in them an account is.

use std::sync::atomic::{AtomicU32, Ordering};

use account_events::AccountId;

/// The slots of a segment.
const SEGMENT_SLOTS: usize = 64;

/// A shard grows when more than this share of its slots, in percent, is taken.
const MAX_LOAD_PERCENT: usize = 92;

/// A shard that grows gets so many times the segments, and one more at least.
const GROWTH: f64 = 1.1;

/// As many slots as its segments have; none at first.
pub(super) struct Shard {
    segments: Box<[Box<Segment>]>,
}

/// `[id, id, id, id, state]`; the state is 0 while it is free.
type Slot = [AtomicU32; 5];

/// As much as is allocated at once.
type Segment = [Slot; SEGMENT_SLOTS];

impl Shard {
    pub(super) fn with_segments(count: usize) -> Self {
        let segment = || Box::new(std::array::from_fn(|_| Default::default()));
        Shard { segments: (0..count).map(|_| segment()).collect() }
    }

    fn slot_count(&self) -> usize {
        self.segments.len() * SEGMENT_SLOTS
    }

    pub(super) fn slot(&self, number: usize) -> &Slot {
        &self.segments[number / SEGMENT_SLOTS][number % SEGMENT_SLOTS]
    }

    /// Whether there is no room for one more beside so many.
    pub(super) fn is_full(&self, taken: usize) -> bool {
        (taken + 1) * 100 > self.slot_count() * MAX_LOAD_PERCENT
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
        while let Some(segment) = self.segments.get(first / SEGMENT_SLOTS) {
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
            first = if next == self.segments.len() { 0 } else { next * SEGMENT_SLOTS };
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

    /// Reads a word of the slot at `place`, so that it is in the processor's caches when it is looked at next.
    pub(super) fn touch(&self, place: u32) {
        if self.slot_count() > 0 {
            std::hint::black_box(self.slot(self.first(place))[4].load(Ordering::Relaxed));
        }
    }

    /// A larger one with the same accounts; for `phase` see [`larger`].
    pub(super) fn grown(&self, phase: f64, place: impl Fn(AccountId) -> u32) -> Shard {
        let grown = Shard::with_segments(larger(self.segments.len(), phase));
        for slot in self.segments.iter().flat_map(|segment| segment.iter()) {
            let [a, b, c, d, state] = [0, 1, 2, 3, 4].map(|word| slot[word].load(Ordering::Relaxed));
            if state != 0 {
                let id = [a, b, c, d];
                grown.take(grown.free_slot(place(from_words(id))), id, state);
            }
        }
        grown
    }
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

fn from_words([a, b, c, d]: [u32; 4]) -> AccountId {
    let pair = |high, low| u64::from(high) << 32 | u64::from(low);
    AccountId(uuid::Uuid::from_u64_pair(pair(a, b), pair(c, d)))
}
