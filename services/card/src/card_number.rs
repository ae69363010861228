//! Card numbers.

use country_code::CountryCode;
use numbering::{MAX_DIGITS, Numbering};

/// Converts countries and sequences to card numbers and back.
#[derive(Clone)]
pub(crate) struct CardNumbering(pub(crate) Numbering);

impl CardNumbering {
    pub(crate) fn number(&self, country: CountryCode, sequence: u64) -> String {
        let country = country.as_str();
        let mut number = String::with_capacity(country.len() + 1 + MAX_DIGITS);
        number.extend([country, "-"]);
        self.0.push_digits(sequence, &mut number);
        number
    }

    pub(crate) fn parse(&self, number: &str) -> Option<(CountryCode, u64)> {
        let (country, digits) = number.split_once('-')?;
        Some((country.parse().ok()?, self.0.sequence(digits)?))
    }
}
