//! Turns: what is compared is measured several times, ours and the peer's one after the other, so that whatever else the machine
//! does meets both. What is given is the median; of a comparison, the median of the turns' own ratios.

use crate::figure::{Figure, Unit};

/// What each turn came to.
pub(crate) struct Turns<'a, T>(pub(crate) &'a [T]);

impl<T> Turns<'_, T> {
    /// The median of `value`.
    pub(crate) fn middle(&self, value: impl Fn(&T) -> f64) -> f64 {
        median(self.0.iter().map(value).collect())
    }

    /// The median as a line of the table.
    pub(crate) fn figure(&self, what: impl Into<String>, unit: Unit, ours: impl Fn(&T) -> f64) -> Figure {
        Figure::new(what, self.middle(ours), unit)
    }

    /// The same beside the median of `theirs`, which the table calls `peer`.
    pub(crate) fn compared(
        &self,
        what: impl Into<String>,
        unit: Unit,
        ours: impl Fn(&T) -> f64,
        peer: impl Into<String>,
        theirs: impl Fn(&T) -> f64,
    ) -> Figure {
        let ratio = self.middle(|turn| ours(turn) / theirs(turn));
        self.figure(what, unit, ours).against_with_ratio(peer, self.middle(theirs), ratio)
    }
}

/// The middle one, or the upper of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_those_of_the_turns() {
        let turns = [(10.0, 10.0), (20.0, 40.0), (90.0, 30.0)];
        let figure = Turns(&turns).compared("a", Unit::Count, |turn| turn.0, "b", |turn| turn.1);
        let against = figure.against.clone().unwrap();
        assert_eq!((figure.ours, against.number, against.ratio), (20.0, 30.0, 1.0));
    }
}
