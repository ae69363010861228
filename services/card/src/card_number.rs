//! Card numbers.

use country_code::CountryCode;
use numbering::Numbering;

/// Card numbers from countries and sequences, and back.
#[derive(Clone)]
pub(crate) struct CardNumbering(pub(crate) Numbering);

impl CardNumbering {
    pub(crate) fn number(&self, country: CountryCode, sequence: u64) -> String {
        let mut number = format!("{country}-");
        self.0.push_digits(sequence, &mut number);
        number
    }

    pub(crate) fn parse(&self, number: &str) -> Option<(CountryCode, u64)> {
        let (country, digits) = number.split_once('-')?;
        Some((country.parse().ok()?, self.0.sequence(digits)?))
    }
}
