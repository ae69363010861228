//! The table of one part: a row for each figure, with the median of its rounds, beside the median of what it is compared with.

use std::fmt::Write as _;

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    PerSecond,
    Milliseconds,
    Microseconds,
    Bytes,
    Mebibytes,
}

impl Unit {
    fn show(self, number: f64) -> String {
        let digits = match number.abs() {
            size if size >= 100.0 => 0,
            size if size >= 10.0 => 1,
            _ => 2,
        };
        let text = format!("{number:.digits$}");
        let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
        let name = match self {
            Unit::PerSecond => "/s",
            Unit::Milliseconds => " ms",
            Unit::Microseconds => " µs",
            Unit::Bytes => " bytes",
            Unit::Mebibytes => " MiB",
        };
        grouped(whole) + fraction + name
    }
}

/// A whole number with commas between the thousands.
pub(crate) fn grouped(number: impl ToString) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Whom a value is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// The binaries that are measured.
    Ours,
    /// Something else, by its name in the table.
    Other(&'static str),
}

/// One line of the table.
struct Row {
    what: String,
    unit: Unit,
    ours: Vec<f64>,
    other: Vec<f64>,
    /// What `other` is of.
    name: &'static str,
}

/// The table. Each round adds a value to each row.
#[derive(Default)]
pub(crate) struct Results(Vec<Row>);

impl Results {
    /// Adds a value to the row called `what`, which is made where there is none.
    pub(crate) fn add(&mut self, what: &str, unit: Unit, of: Of, value: f64) {
        let at = self.0.iter().position(|row| row.what == what).unwrap_or_else(|| {
            self.0.push(Row { what: what.to_owned(), unit, ours: Vec::new(), other: Vec::new(), name: "" });
            self.0.len() - 1
        });
        let row = &mut self.0[at];
        match of {
            Of::Ours => row.ours.push(value),
            Of::Other(name) => {
                row.name = name;
                row.other.push(value);
            }
        }
    }

    /// The table in Markdown, without the columns on the right if no row has anything in them.
    pub(crate) fn markdown(&self) -> String {
        let head = ["", "Tandem", "beside it", "ratio"].map(str::to_owned);
        let columns = if self.0.iter().all(|row| row.other.is_empty()) { 2 } else { head.len() };
        let rule = ["---", "--:", "---", "--:"].map(str::to_owned);
        let rows: Vec<_> = [head, rule].into_iter().chain(self.0.iter().map(Row::cells)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns).map(width).collect();
        let line = |row: &[String; 4]| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!(" {cell:width$} |"));
            format!("|{}", cells.collect::<String>())
        };
        rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Bars for the rates that are compared with something; nothing if there are none. The picture is SVG.
    pub(crate) fn picture(&self) -> Option<String> {
        const TEXT: usize = 330;
        const BAR: usize = 320;
        const LINE: usize = 20;
        let rates: Vec<_> = self.0.iter().filter(|row| row.unit == Unit::PerSecond && !row.other.is_empty()).collect();
        let most = rates.iter().flat_map(|row| [median(&row.ours), median(&row.other)]).reduce(f64::max)?;
        let (width, height) = (TEXT + BAR + 100, rates.len() * (2 * LINE + 12));
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
             font-size=\"13\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
        );
        for (at, row) in rates.iter().enumerate() {
            let top = at * (2 * LINE + 12) + 6;
            let bars = [(row.what.as_str(), &row.ours, "#27a"), (row.name, &row.other, "#aaa")];
            for (y, (name, values, colour)) in (top..).step_by(LINE).zip(bars) {
                let (value, text) = (median(values), y + 14);
                let length = (value / most * BAR as f64).round();
                let _ = writeln!(
                    svg,
                    "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{name}</text>\
                     <rect x=\"{TEXT}\" y=\"{}\" width=\"{length}\" height=\"{}\" fill=\"{colour}\"/>\
                     <text x=\"{}\" y=\"{text}\">{}</text>",
                    TEXT - 8,
                    y + 2,
                    LINE - 4,
                    TEXT as f64 + length + 6.0,
                    row.unit.show(value),
                );
            }
        }
        Some(svg + "</svg>\n")
    }
}

impl Row {
    fn cells(&self) -> [String; 4] {
        let (other, ratio) = match self.other.is_empty() {
            true => (String::new(), String::new()),
            false => {
                (format!("{}: {}", self.name, self.unit.show(median(&self.other))), format!("{:.2}", self.ratio()))
            }
        };
        [self.what.clone(), self.unit.show(median(&self.ours)), other, ratio]
    }

    /// The median of the rounds' own ratios: what else the machine does at a time affects both sides of a round.
    fn ratio(&self) -> f64 {
        median(&self.ours.iter().zip(&self.other).map(|(ours, other)| ours / other).collect::<Vec<_>>())
    }
}

/// The middle value, or the upper one of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_both_medians_and_the_median_of_the_ratios() {
        let mut results = Results::default();
        for (ours, other) in [(10.0, 10.0), (20.0, 40.0), (91_000.0, 30.0)] {
            results.add("accounts", Unit::PerSecond, Of::Ours, ours);
            results.add("accounts", Unit::PerSecond, Of::Other("before"), other);
        }
        results.add("memory", Unit::Mebibytes, Of::Ours, 12_345_678.0);
        let expected = "\
|          | Tandem         | beside it      | ratio |
| ---      | --:            | ---            | --:   |
| accounts | 20.0/s         | before: 30.0/s | 1.00  |
| memory   | 12,345,678 MiB |                |       |";
        assert_eq!(results.markdown(), expected);
        assert!(results.picture().is_some_and(|svg| svg.contains("before") && !svg.contains("memory")));
    }
}
