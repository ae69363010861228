//! Conditional requests: a version as an entity tag, and `If-Match` (RFC 9110, 13.1.1).
//!
//! The comparison is strong: a weak tag matches nothing. What cannot be read matches nothing either, so that a caller
//! who asked for a condition never has it dropped.

use axum::http::header::IF_MATCH;
use axum::http::{HeaderMap, HeaderValue};

/// The `ETag` of `version`: `"3"`.
pub fn etag(version: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// What the caller's `If-Match` accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`: any version, as long as the thing exists.
    Any,
    /// One of these; with none of them, nothing matches.
    Versions(Vec<u64>),
}

impl IfMatch {
    /// Reads `If-Match` from `headers`, all its lines together; `None` if the caller set no condition.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(IF_MATCH).iter().peekable();
        lines.peek()?;
        let mut versions = Vec::new();
        for line in lines {
            let line = line.to_str().unwrap_or_default().trim();
            if line == "*" {
                return Some(Self::Any);
            }
            read_tags(line, &mut versions);
        }
        Some(Self::Versions(versions))
    }

    /// Whether a thing that exists in `version` meets the condition.
    pub fn matches(&self, version: u64) -> bool {
        match self {
            Self::Any => true,
            Self::Versions(versions) => versions.contains(&version),
        }
    }
}

/// Adds the versions among the tags of one `line`. A comma inside quotes belongs to its tag.
fn read_tags(line: &str, versions: &mut Vec<u64>) {
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return;
        }
        let weak = rest.starts_with("W/");
        let tag = rest.strip_prefix("W/").unwrap_or(rest);
        let (text, after) = match tag.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((",", "")), // never closed: no version reads like this
            None => tag.split_at(tag.find(',').unwrap_or(tag.len())),
        };
        let (trailing, after) = after.split_at(after.find(',').unwrap_or(after.len()));
        if !weak && trailing.trim().is_empty() {
            versions.extend(version_of(text.trim_end()));
        }
        rest = after;
    }
}

/// The version `text` is the tag of. Tags are compared as text, so `03` is not version 3.
fn version_of(text: &str) -> Option<u64> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn if_match(lines: &[&str]) -> Option<IfMatch> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(IF_MATCH, HeaderValue::from_str(line).unwrap());
        }
        IfMatch::from_headers(&headers)
    }

    #[test]
    fn an_etag_is_the_quoted_version() {
        assert_eq!(etag(3), "\"3\"");
        assert_eq!(etag(u64::MAX), "\"18446744073709551615\"");
    }

    #[test]
    fn if_match_compares_strongly() {
        assert_eq!(if_match(&[]), None);
        assert_eq!(if_match(&["*"]), Some(IfMatch::Any));
        assert!(IfMatch::Any.matches(7));
        for (lines, matching) in [
            (&["\"3\""][..], &[3][..]),
            (&["\"3\", \"4\""], &[3, 4]),
            (&["\"3\",, \"4\" ,\"5\""], &[3, 4, 5]),
            (&["\"3\"", "\"5\""], &[3, 5]),
            (&["3"], &[3]),
            (&["3, 4"], &[3, 4]),
            (&["W/\"3\""], &[]),
            (&["W/\"3\", \"4\""], &[4]),
            (&["\"a,3,b\", \"4\""], &[4]),
            (&["\"3"], &[]),
            (&["\"3\"x"], &[]),
            (&["\"03\", +3, -3, 3.0, abc"], &[]),
            (&[""], &[]),
            (&["\"99999999999999999999\""], &[]),
        ] {
            assert_eq!(if_match(lines), Some(IfMatch::Versions(matching.to_vec())), "{lines:?}");
        }
        assert!(if_match(&["\"3\""]).unwrap().matches(3));
        assert!(!if_match(&["\"3\""]).unwrap().matches(4));
    }
}
