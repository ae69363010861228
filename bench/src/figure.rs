//! A line of the table: what was measured, what it is measured against, and the bound it is held to.

use serde_json::{Value, json};

/// What a number counts. Displays as the table shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    PerSecond,
    Milliseconds,
    Microseconds,
    Nanoseconds,
    Seconds,
    Bytes,
    Mebibytes,
    Count,
    Ratio,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::PerSecond => "/s",
            Unit::Milliseconds => "ms",
            Unit::Microseconds => "µs",
            Unit::Nanoseconds => "ns",
            Unit::Seconds => "s",
            Unit::Bytes => "bytes",
            Unit::Mebibytes => "MiB",
            Unit::Count | Unit::Ratio => "",
        }
    }

    fn show(self, number: f64) -> String {
        let digits = match number.abs() {
            _ if self == Unit::Ratio => 2,
            size if size >= 100.0 => 0,
            size if size >= 10.0 => 1,
            _ => 2,
        };
        format!("{number:.digits$} {}", self.name()).trim_end().to_owned()
    }
}

/// The bound of a figure: of its ratio if it is measured against something, else of its own number.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn is_met(self, number: f64) -> bool {
        match self {
            Bound::AtLeast(least) => number >= least,
            Bound::AtMost(most) => number <= most,
        }
    }

    pub(crate) fn number(self) -> f64 {
        match self {
            Bound::AtLeast(number) | Bound::AtMost(number) => number,
        }
    }
}

/// A line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) ours: f64,
    pub(crate) unit: Unit,
    pub(crate) against: Option<Against>,
    pub(crate) bound: Option<Bound>,
}

/// The limit or the peer that a figure is measured against, in the figure's unit.
#[derive(Debug, Clone)]
pub(crate) struct Against {
    pub(crate) what: String,
    pub(crate) number: f64,
    /// Ours divided by it: the median of the turns' own ratios, where there were several.
    pub(crate) ratio: f64,
}

impl Figure {
    /// One that stands by itself.
    pub(crate) fn new(what: impl Into<String>, ours: f64, unit: Unit) -> Self {
        Figure { what: what.into(), ours, unit, against: None, bound: None }
    }

    /// Measured against `number`.
    pub(crate) fn against(self, what: impl Into<String>, number: f64) -> Self {
        let ratio = self.ours / number;
        self.against_with_ratio(what, number, ratio)
    }

    /// Measured against `number` in several turns, whose own ratios have the median `ratio`.
    pub(crate) fn against_with_ratio(mut self, what: impl Into<String>, number: f64, ratio: f64) -> Self {
        self.against = Some(Against { what: what.into(), number, ratio });
        self
    }

    pub(crate) fn at_least(mut self, bound: f64) -> Self {
        self.bound = Some(Bound::AtLeast(bound));
        self
    }

    pub(crate) fn at_most(mut self, bound: f64) -> Self {
        self.bound = Some(Bound::AtMost(bound));
        self
    }

    /// What the bound is of.
    pub(crate) fn bounded(&self) -> f64 {
        self.against.as_ref().map_or(self.ours, |against| against.ratio)
    }

    /// Whether the bound is met, if there is one.
    pub(crate) fn is_met(&self) -> Option<bool> {
        Some(self.bound?.is_met(self.bounded()))
    }

    fn bound_text(&self) -> String {
        let Some(bound) = self.bound else { return String::new() };
        let unit = if self.against.is_some() { Unit::Ratio } else { self.unit };
        let side = match bound {
            Bound::AtLeast(_) => "≥",
            Bound::AtMost(_) => "≤",
        };
        let not_met = if bound.is_met(self.bounded()) { "" } else { "  not met" };
        format!("{side} {}{not_met}", unit.show(bound.number()))
    }

    pub(crate) fn cells(&self) -> [String; 5] {
        let against = self.against.as_ref();
        [
            self.what.clone(),
            self.unit.show(self.ours),
            against.map_or(String::new(), |limit| format!("{}  {}", limit.what, self.unit.show(limit.number))),
            against.map_or(String::new(), |limit| Unit::Ratio.show(limit.ratio)),
            self.bound_text(),
        ]
    }

    /// As it is kept in a file.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "what": self.what.trim(),
            "ours": self.ours,
            "unit": self.unit.name(),
            "against": self.against.as_ref().map(|limit| json!({
                "what": limit.what, "number": limit.number, "ratio": limit.ratio,
            })),
            "bound": self.bound.map(|bound| match bound {
                Bound::AtLeast(number) => json!({"at_least": number}),
                Bound::AtMost(number) => json!({"at_most": number}),
            }),
            "is_met": self.is_met(),
        })
    }
}

/// The table, with a head.
pub(crate) fn table(figures: &[Figure]) -> String {
    let head = ["", "ours", "the limit or the peer", "ratio", "bound"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(figures.iter().map(Figure::cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let [what, ours, against, ratio, _] = [0, 1, 2, 3, 4].map(width);
    let line = |[a, b, c, d, e]: &[String; 5]| {
        format!("{a:what$}  {b:>ours$}  {c:>against$}  {d:>ratio$}  {e}").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_of_the_ratio_where_there_is_one() {
        let figure = Figure::new("a", 8.0, Unit::PerSecond).against("b", 10.0).at_least(0.9);
        assert_eq!((figure.bounded(), figure.is_met()), (0.8, Some(false)));
        let figure = Figure::new("a", 8.0, Unit::Milliseconds).at_most(9.0);
        assert_eq!((figure.bounded(), figure.is_met()), (8.0, Some(true)));
        assert_eq!(Figure::new("a", 8.0, Unit::Count).is_met(), None);
    }

    #[test]
    fn the_table_says_what_is_not_met() {
        let met = Figure::new("accounts", 12_345.6, Unit::PerSecond).against("a peer", 20_000.0).at_least(0.5);
        let not = Figure::new("  p99", 12.34, Unit::Milliseconds).at_most(5.0);
        let expected = "              ours  the limit or the peer  ratio  bound\n\
                        accounts  12346 /s       a peer  20000 /s   0.62  ≥ 0.50\n  \
                          p99      12.3 ms                                ≤ 5.00 ms  not met";
        assert_eq!(table(&[met, not]), expected);
    }
}
