//! docs/performance.md: its tables stand between markers, and are replaced by those of a new run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::results::Results;

/// Replaces the table of `part` in the document, and its picture if it has one. `source` says where the figures are from.
pub(crate) fn write(part: &str, results: &Results, source: &str) -> anyhow::Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut section = results.markdown();
    if let Some(svg) = results.picture() {
        write_file(&docs.join(format!("bench/{part}.svg")), &svg)?;
        section = format!("![The rates as bars](bench/{part}.svg)\n\n{section}");
    }
    let path = docs.join("performance.md");
    let document = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    write_file(&path, &replaced(&document, part, &format!("{section}\n\n{source}"))?)
}

fn write_file(path: &PathBuf, text: &str) -> anyhow::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The document with `section` between the markers of `part`.
fn replaced(document: &str, part: &str, section: &str) -> anyhow::Result<String> {
    let (begin, end) = (format!("<!-- bench:{part} -->"), format!("<!-- /bench:{part} -->"));
    let no_marker = || format!("docs/performance.md has no {begin} … {end}");
    let (before, rest) = document.split_once(&begin).with_context(no_marker)?;
    let (old, after) = rest.split_once(&end).with_context(no_marker)?;
    ensure!(!old.contains("<!--"), "another marker stands between {begin} and {end}");
    Ok(format!("{before}{begin}\n\n{section}\n\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_of_the_part_is_replaced() {
        let document = "a <!-- bench:one -->old<!-- /bench:one --> b <!-- bench:two -->\n<!-- /bench:two -->";
        let expected = "a <!-- bench:one -->\n\nnew\n\n<!-- /bench:one --> b <!-- bench:two -->\n<!-- /bench:two -->";
        assert_eq!(replaced(document, "one", "new").unwrap(), expected);
        assert!(replaced(document, "three", "new").is_err());
    }

    #[test]
    fn the_document_has_a_place_for_every_part() {
        let document = include_str!("../../docs/performance.md");
        for part in <crate::Part as clap::ValueEnum>::value_variants() {
            replaced(document, &part.name(), "").unwrap();
        }
    }
}
