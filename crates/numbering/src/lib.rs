//! Numbers and ids that never collide and cannot be guessed: a keyed permutation of a sequence (docs/decisions/0006).
//!
//! A permutation maps each sequence to one number, so numbers cannot collide. Its inverse finds a row by its number without
//! an index. Numbers have eight digits until the sequence has used all of them, then nine, and so on. Each length has its own
//! permutation, so a number never changes.
//!
//! The permutation is a Feistel network over SipHash-2-4 with a 128-bit key, walked in cycles until it lands in the range
//! (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).

mod ids;

use std::fmt::Write;

use siphasher::sip::SipHasher24;
use uuid::Uuid;

pub use ids::TimeOrderedIds;

/// The number of digits of the shortest numbers.
const MIN_DIGITS: u32 = 8;

/// The number of digits of the longest numbers.
pub const MAX_DIGITS: usize = 20;

/// Takes the place of the number of digits when an id is permuted. No number has as many digits.
const ID_LENGTH: u32 = 255;

/// The rounds of the Feistel network. Seven make it indistinguishable from a random permutation (Patarin, 2004).
const ROUNDS: u8 = 8;

/// Converts sequences to numbers and back under one secret key.
#[derive(Clone)]
pub struct Numbering {
    hasher: SipHasher24,
    radix: u32,
}

impl Numbering {
    /// Decimal digits, for account numbers.
    pub fn decimal(key: [u8; 16]) -> Self {
        Numbering { hasher: SipHasher24::new_with_key(&key), radix: 10 }
    }

    /// Lower-case hexadecimal digits, for card numbers.
    pub fn hexadecimal(key: [u8; 16]) -> Self {
        Numbering { hasher: SipHasher24::new_with_key(&key), radix: 16 }
    }

    /// Appends the eight or more digits of `sequence` to `text`.
    pub fn push_digits(&self, sequence: u64, text: &mut String) {
        let mut length = MIN_DIGITS;
        while sequence > self.range(length).1 {
            length += 1;
        }
        let (first, last) = self.range(length);
        let number = first + self.permute(sequence - first, last - first, length);
        let width = length as usize;
        // Writing to a string does not fail.
        let _ = if self.radix == 16 { write!(text, "{number:0width$x}") } else { write!(text, "{number:0width$}") };
    }

    /// Returns the sequence with these digits, or `None` if there is none.
    pub fn sequence(&self, digits: &str) -> Option<u64> {
        let canonical = digits.bytes().all(|b| b.is_ascii_digit() || (self.radix == 16 && matches!(b, b'a'..=b'f')));
        if !canonical || !(MIN_DIGITS as usize..=MAX_DIGITS).contains(&digits.len()) {
            return None;
        }
        let length = digits.len() as u32;
        let number = u64::from_str_radix(digits, self.radix).ok()?;
        u64::from(self.radix).checked_pow(length - 1)?; // no sequence has a number this long
        let (first, last) = self.range(length);
        if !(first..=last).contains(&number) {
            return None;
        }
        Some(first + self.permute_back(number - first, last - first, length))
    }

    /// Returns the sequence in an id of [`TimeOrderedIds::next_of`]. For any other id the result is arbitrary, so the caller
    /// compares the id of the row that it finds.
    pub fn sequence_of_id(&self, id: Uuid) -> u64 {
        self.permute_back(ids::random_part(id), ids::RANDOM, ID_LENGTH)
    }

    /// The bits of an id that encode `sequence`.
    fn permuted_for_id(&self, sequence: u64) -> u64 {
        self.permute(sequence, ids::RANDOM, ID_LENGTH)
    }

    /// The first and the last number with `length` digits. Their sequences are the same range, in another order. Only the shortest numbers may begin
    /// with zeros, so no number has two spellings.
    fn range(&self, length: u32) -> (u64, u64) {
        let radix = u64::from(self.radix);
        let last = radix.checked_pow(length).map_or(u64::MAX, |count| count - 1);
        (if length == MIN_DIGITS { 0 } else { radix.saturating_pow(length - 1) }, last)
    }

    /// Permutes the values from 0 to `last`.
    fn permute(&self, value: u64, last: u64, length: u32) -> u64 {
        walk(value, last, |half_bits, left, right| {
            (0..ROUNDS)
                .fold((left, right), |(left, right), round| (right, left ^ self.round(length, round, right, half_bits)))
        })
    }

    fn permute_back(&self, value: u64, last: u64, length: u32) -> u64 {
        walk(value, last, |half_bits, left, right| {
            (0..ROUNDS)
                .rev()
                .fold((left, right), |(left, right), round| (right ^ self.round(length, round, left, half_bits), left))
        })
    }

    fn round(&self, length: u32, round: u8, half: u64, half_bits: u32) -> u64 {
        let mut message = [0; 12];
        message[..8].copy_from_slice(&half.to_le_bytes());
        message[8..].copy_from_slice(&(length << 8 | u32::from(round)).to_le_bytes());
        self.hasher.hash(&message) & ((1 << half_bits) - 1)
    }
}

/// Applies `network` to the smallest even number of bits that holds `last`, and repeats it until the result is at most `last`:
/// fewer than four times on average.
fn walk(mut value: u64, last: u64, network: impl Fn(u32, u64, u64) -> (u64, u64)) -> u64 {
    let half_bits = (u64::BITS - last.leading_zeros()).div_ceil(2);
    loop {
        let (left, right) = network(half_bits, value >> half_bits, value & ((1 << half_bits) - 1));
        value = left << half_bits | right;
        if value <= last {
            return value;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const KEY: [u8; 16] = *b"sixteen byte key";

    impl Numbering {
        fn digits(&self, sequence: u64) -> String {
            let mut digits = String::new();
            self.push_digits(sequence, &mut digits);
            digits
        }
    }

    #[test]
    fn every_number_leads_back_to_its_sequence_and_to_no_other() {
        for numbering in [Numbering::decimal(KEY), Numbering::hexadecimal(KEY)] {
            let around = [0, 99_999_900, 999_999_900, u64::from(u32::MAX) - 50, 1 << 40, i64::MAX as u64 - 100];
            let mut seen = HashSet::new();
            for sequence in around.into_iter().flat_map(|start| start..start + 100) {
                let digits = numbering.digits(sequence);
                assert!(digits.len() >= 8, "{digits}");
                assert_eq!(numbering.sequence(&digits), Some(sequence), "{digits}");
                assert!(seen.insert(digits));
            }
        }
    }

    #[test]
    fn the_first_hundred_million_have_eight_digits_and_the_next_has_nine() {
        let numbering = Numbering::decimal(KEY);
        assert_eq!(numbering.digits(99_999_999).len(), 8);
        assert_eq!(numbering.digits(100_000_000).len(), 9);
        assert_eq!(Numbering::hexadecimal(KEY).digits(u64::from(u32::MAX)).len(), 8);
    }

    /// They are in the databases and in the hands of clients.
    #[test]
    fn numbers_and_ids_are_the_same_for_ever() {
        let (decimal, hexadecimal) = (Numbering::decimal(KEY), Numbering::hexadecimal(KEY));
        for (sequence, account, card, id) in [
            (1, "31680903", "8da45c42", 0x3364_8c70_80c3_aa1e),
            (99_999_999, "21981261", "f0af4e1d", 0x02f7_5ec2_c1a1_886f),
            (100_000_000, "292475311", "c107c5e1", 0x07c1_4a88_5379_120c),
            (i64::MAX as u64 >> 2, "7727835755340098570", "873fcbab134c8584", 0x3a10_f091_9231_0abf),
        ] {
            assert_eq!(decimal.digits(sequence), account);
            assert_eq!(hexadecimal.digits(sequence), card);
            assert_eq!(decimal.permuted_for_id(sequence), id, "{sequence}");
        }
    }

    #[test]
    fn what_is_no_number_has_no_sequence() {
        let numbering = Numbering::decimal(KEY);
        for digits in [
            "",
            "1234567",
            "+1234567",
            "012345678",
            "abcdefgh",
            "１２３４５６７８",
            "99999999999999999999",
            "123456789012345678901",
        ] {
            assert_eq!(numbering.sequence(digits), None, "{digits}");
        }
        for digits in ["ABCDEF01", "0ffffffffffffffff", "0000ffffffffffffffff"] {
            assert_eq!(Numbering::hexadecimal(KEY).sequence(digits), None, "{digits}");
        }
    }

    #[test]
    fn another_key_gives_other_numbers_and_neighbours_lie_far_apart() {
        let (one, other) = (Numbering::decimal(KEY), Numbering::decimal(*b"another byte key"));
        let same = (1..=1_000).filter(|&sequence| one.digits(sequence) == other.digits(sequence)).count();
        assert!(same < 3, "{same} of 1,000 numbers are the same under two keys");
        let numbers: Vec<i64> = (1..=1_000).map(|sequence| one.digits(sequence).parse().unwrap()).collect();
        let near = numbers.windows(2).filter(|pair| (pair[0] - pair[1]).abs() < 1_000).count();
        assert!(near < 3, "{near} of 1,000 neighbours lie within 1,000");
    }
}
