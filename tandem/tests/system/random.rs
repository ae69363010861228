//! Random numbers that a seed repeats.

use std::hash::{BuildHasher as _, RandomState};

/// SplitMix64: small, and good enough to choose what a test does next.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// One of `choices`; `None` if there is none.
    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        (!choices.is_empty()).then(|| &choices[self.below(choices.len())])
    }

    /// Puts `items` in any order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for place in (1..items.len()).rev() {
            items.swap(place, self.below(place + 1));
        }
    }
}

/// The seed of this run: `TANDEM_TEST_SEED`, or another one each time. It is printed with the thread's name, which is the
/// test's, so that a failure can be repeated.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("TANDEM_TEST_SEED") {
        Ok(text) => text.parse().expect("TANDEM_TEST_SEED is a number"),
        Err(_) => RandomState::new().hash_one(0),
    };
    let thread = std::thread::current();
    eprintln!("{}: repeat with TANDEM_TEST_SEED={seed}", thread.name().unwrap_or("a thread without a name"));
    seed
}
