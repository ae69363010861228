//! Account numbers.

use numbering::{MAX_DIGITS, Numbering};

/// The prefix of an account number, as in the seed.
const NUMBER_PREFIX: &str = "ACC-";

/// Converts sequences to account numbers and back.
#[derive(Clone)]
pub(crate) struct AccountNumbering(pub(crate) Numbering);

impl AccountNumbering {
    pub(crate) fn number(&self, sequence: u64) -> String {
        let mut number = String::with_capacity(NUMBER_PREFIX.len() + MAX_DIGITS);
        number.push_str(NUMBER_PREFIX);
        self.0.push_digits(sequence, &mut number);
        number
    }

    pub(crate) fn sequence(&self, number: &str) -> Option<u64> {
        self.0.sequence(number.strip_prefix(NUMBER_PREFIX)?)
    }
}
