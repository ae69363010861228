//! What a part of the bench found, kept under `docs/bench`: as JSON, and drawn as SVG.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use serde_json::json;

use crate::figure::Figure;

/// Pixels of the picture: a line's height, its text, and the bars, which stand for a share of the bound from 0 to 2.
const LINE: usize = 24;
const TEXT: usize = 560;
const BARS: usize = 360;
const NUMBERS: usize = 260;

/// Writes `docs/bench/NAME.json` and `docs/bench/NAME.svg`.
pub(crate) fn keep(name: &str, figures: &[Figure]) -> anyhow::Result<()> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/bench"));
    fs::create_dir_all(&folder)?;
    let report = json!({
        "machine": machine(),
        "commit": commit(),
        "figures": figures.iter().map(Figure::to_json).collect::<Vec<_>>(),
    });
    let write = |ending: &str, text: String| {
        let path = folder.join(format!("{name}.{ending}"));
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write("json", format!("{report:#}\n"))?;
    write("svg", picture(figures))
}

/// The processor, and how many of it.
fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{}, {cores} cores", model.map_or("unknown processor", |(_, name)| name.trim()))
}

/// The commit that was measured, if git tells.
fn commit() -> Option<String> {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A bar for each figure that has a bound, as long as what is bounded is of the bound, which is the line in the middle.
fn picture(figures: &[Figure]) -> String {
    let bounded: Vec<_> = figures.iter().filter_map(|figure| Some((figure, figure.bound?, figure.is_met()?))).collect();
    let (width, height) = (TEXT + BARS + NUMBERS, LINE * (bounded.len() + 1));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (row, (figure, bound, is_met)) in bounded.iter().enumerate() {
        let share = (figure.bounded() / bound.number()).clamp(0.0, 2.0);
        let (top, middle) = (row * LINE + LINE / 2, row * LINE + LINE);
        let length = (share * BARS as f64 / 2.0).round();
        let colour = if *is_met { "#4a7" } else { "#c54" };
        let [_, ours, _, ratio, bound] = figure.cells().map(|cell| escaped(&cell));
        let number = if ratio.is_empty() { ours } else { ratio };
        let what = escaped(figure.what.trim());
        // What is written cannot fail: it goes to a string.
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{what}</text>\
             <rect x=\"{TEXT}\" y=\"{}\" width=\"{length}\" height=\"{}\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{}\">{number} ({bound})</text>",
            TEXT - 8,
            middle + 4,
            top + 4,
            LINE - 8,
            TEXT + BARS + 8,
            middle + 4,
        );
    }
    let bound_at = TEXT + BARS / 2;
    let _ = writeln!(
        svg,
        "<line x1=\"{bound_at}\" x2=\"{bound_at}\" y1=\"4\" y2=\"{}\" stroke=\"black\" stroke-dasharray=\"4 3\"/>\n\
         <text x=\"{}\" y=\"12\" font-size=\"10\">the bound</text>\n</svg>",
        height - 4,
        bound_at + 4,
    );
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Unit;

    #[test]
    fn a_bar_is_as_long_as_its_share_of_the_bound() {
        let half = Figure::new("a < b", 5.0, Unit::Count).at_least(10.0);
        let far_beyond = Figure::new("c", 50.0, Unit::Count).at_least(10.0);
        let none = Figure::new("nothing to draw", 1.0, Unit::Count);
        let svg = picture(&[half, far_beyond, none]);
        assert!(svg.contains("a &lt; b") && svg.contains("width=\"90\"") && svg.contains("width=\"360\""), "{svg}");
        assert!(!svg.contains("nothing to draw"));
    }
}
