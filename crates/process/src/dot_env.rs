//! The text of a `.env` file: a line is empty, a comment, or `NAME=VALUE`. Values are literal.
//!
//! ```text
//! # a comment has a line of its own
//! ACCOUNT_PORT=8081
//! export KAFKA_SASL_PASSWORD='any $character, "double" quotes and # included'
//! ```
//!
//! White space around a name, a value and a line is ignored, and so is `export`. A value may be in single or double quotes;
//! nothing in it is escaped or expanded. Lines that other readers of such files may interpret differently are refused: a
//! quote that is not closed or is not the last character, and a `#` that may begin a comment. The last line of a name counts.

/// Returns the names and values in `text`, in order. The error has the number of the line and not its text, which may be a
/// secret.
pub(crate) fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(index, line)| entry(line).map_err(|reason| format!("line {} {reason}", index + 1))).collect()
}

fn entry(line: &str) -> Result<(String, String), &'static str> {
    let (name, value) = line.split_once('=').ok_or("is malformed: expected NAME=value")?;
    let name = match name.trim().split_once(char::is_whitespace) {
        Some(("export", name)) => name.trim(),
        _ => name.trim(),
    };
    let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
    if name.is_empty() || name.starts_with(|char: char| char.is_ascii_digit()) || !name.chars().all(is_name) {
        return Err("is malformed: a name has letters, digits and _ only");
    }
    let value = literal(value.trim())?;
    match value.contains(char::is_control) {
        true => Err("is malformed: the value has a control character"),
        false => Ok((name.to_owned(), value.to_owned())),
    }
}

fn literal(value: &str) -> Result<&str, &'static str> {
    let Some(quote) = value.chars().next().filter(|first| ['\'', '"'].contains(first)) else {
        let is_comment = value.starts_with('#') || value.contains(" #") || value.contains("\t#");
        return match is_comment {
            true => Err("is ambiguous: quote the value if # belongs to it, or give the comment a line of its own"),
            false => Ok(value),
        };
    };
    match value[1..].split_once(quote) {
        Some((inner, "")) => Ok(inner),
        _ => Err("is malformed: a quoted value ends with its quote, and has none of the same kind inside"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(line: &str) -> Result<String, String> {
        parse(line).map(|entries| entries[0].1.clone())
    }

    #[test]
    fn values_are_literal() {
        for (line, expected) in [
            ("A=pa$word", "pa$word"),
            ("A=${HOME}$(id)`id`", "${HOME}$(id)`id`"),
            (r"A=back\slash\n", r"back\slash\n"),
            (r#"A="$x\n'y'""#, r"$x\n'y'"),
            (r#"A='"a" # b\'"#, r#""a" # b\"#),
            ("A=two words", "two words"),
            ("A=a#b", "a#b"),
            ("A=a=b==", "a=b=="),
            ("A=it's", "it's"),
            (" export  A =\t1 \r", "1"),
            ("A=' 1 '", " 1 "),
            ("A=", ""),
            ("A=''", ""),
            ("A=Grüße", "Grüße"),
        ] {
            assert_eq!(value(line).as_deref(), Ok(expected), "{line:?}");
        }
    }

    #[test]
    fn comments_empty_lines_a_mark_at_the_start_and_line_ends_of_windows_do_not_count() {
        let text = "\u{FEFF}A=1\r\n\r\n  # B=2\r\nexport C='3'\r\n";
        let expected = [("A", "1"), ("C", "3")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text), Ok(expected.to_vec()));
    }

    #[test]
    fn what_could_mean_something_else_is_refused_by_its_line() {
        for (line, reason) in [
            ("s3cret", "expected NAME=value"),
            ("export A", "expected NAME=value"),
            ("=s3cret", "a name has"),
            ("1A=s3cret", "a name has"),
            ("A B=s3cret", "a name has"),
            ("A='s3cret", "ends with its quote"),
            ("A=\"s3\"cret\"", "ends with its quote"),
            ("A='s3cret' # why", "ends with its quote"),
            ("A=s3cret # why", "is ambiguous"),
            ("A=#s3cret", "is ambiguous"),
            ("A=s3\0cret", "control character"),
        ] {
            let error = value(&format!("# one\nB=2\n{line}\nC=3")).expect_err(line);
            assert!(error.starts_with("line 3 ") && error.contains(reason), "{line}: {error}");
            assert!(!error.contains("s3") && !error.contains("cret"), "{line}: {error}");
        }
    }
}
