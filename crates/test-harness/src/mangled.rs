//! Inputs that are nearly valid, for tests of whatever reads bytes from outside.
//!
//! A test of this kind is called `fuzz`. Few cases run with the other tests; `PROPTEST_CASES` sets how many do.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// A change of some bytes. An index is of a place in them, their end included.
#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    /// Inserts a copy of a part of the bytes.
    Copy(Index, Index, Index),
    Cut(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    // Limits of lengths and numbers, and what separates parts of texts.
    let special = prop::sample::select(b"\x00\x01\x7f\x80\xff\xfe\"\\,:;=%{}[] \r\n".to_vec());
    prop_oneof![
        (index(), 0..8_u8).prop_map(|(place, bit)| Change::Flip(place, bit)),
        (index(), vec(prop_oneof![special, any::<u8>()], 1..5)).prop_map(|(place, bytes)| Change::Insert(place, bytes)),
        (index(), index()).prop_map(|(from, to)| Change::Remove(from, to)),
        (index(), index(), index()).prop_map(|(from, to, place)| Change::Copy(from, to, place)),
        index().prop_map(Change::Cut),
    ]
}

impl Change {
    fn apply(self, bytes: &mut Vec<u8>) {
        let place = |index: Index, bytes: &[u8]| index.index(bytes.len() + 1);
        let range = |from: Index, to: Index, bytes: &[u8]| {
            let (from, to) = (place(from, bytes), place(to, bytes));
            from.min(to)..from.max(to)
        };
        match self {
            Change::Flip(index, bit) => {
                let index = place(index, bytes);
                if let Some(byte) = bytes.get_mut(index) {
                    *byte ^= 1 << bit;
                }
            }
            Change::Insert(index, inserted) => {
                let index = place(index, bytes);
                bytes.splice(index..index, inserted);
            }
            Change::Remove(from, to) => drop(bytes.drain(range(from, to, bytes))),
            Change::Copy(from, to, index) => {
                let (copy, index) = (bytes[range(from, to, bytes)].to_vec(), place(index, bytes));
                bytes.splice(index..index, copy);
            }
            Change::Cut(index) => bytes.truncate(place(index, bytes)),
        }
    }
}

/// One of `seeds`, which are valid, with up to seven changes; in one case of eight, arbitrary bytes.
pub fn mangled(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changed = (any::<Index>(), vec(change(), 0..8)).prop_map(move |(seed, changes)| {
        let mut bytes = seed.get(&seeds).clone();
        changes.into_iter().for_each(|change| change.apply(&mut bytes));
        bytes
    });
    prop_oneof![7 => changed, 1 => vec(any::<u8>(), 0..256)]
}

/// As [`mangled`], for texts.
pub fn mangled_text(seeds: &[&str]) -> impl Strategy<Value = String> {
    let seeds = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    mangled(seeds).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}
