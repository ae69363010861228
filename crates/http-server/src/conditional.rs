//! Conditional requests: a version as an entity tag, `If-Match` and `If-None-Match` (RFC 9110, 13.1).
//!
//! `If-Match` compares strongly, so a weak tag matches nothing; `If-None-Match` compares weakly. A tag that cannot be
//! read matches nothing.

use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// The `ETag` of `version`: `"3"`.
pub fn etag(version: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// The conditions that a caller sets on a write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The versions that the thing must be in one of.
    pub if_match: Option<Versions>,
    /// The versions that the thing must be in none of.
    pub if_none_match: Option<Versions>,
}

impl Conditions {
    /// Reads both headers.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        Self {
            if_match: Versions::from_headers(headers, IF_MATCH, Comparison::Strong),
            if_none_match: if_none_match(headers),
        }
    }
}

/// Reads `If-None-Match` from `headers`; `None` if the caller set no such condition.
pub fn if_none_match(headers: &HeaderMap) -> Option<Versions> {
    Versions::from_headers(headers, IF_NONE_MATCH, Comparison::Weak)
}

/// The versions that a condition names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Versions {
    /// `*`: any version, as long as the thing exists.
    Any,
    /// One of these; with none of them, nothing matches.
    OneOf(Vec<u64>),
}

/// How tags are compared (RFC 9110, 8.8.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

impl Versions {
    /// Reads the header `name`, all its lines together.
    fn from_headers(headers: &HeaderMap, name: HeaderName, comparison: Comparison) -> Option<Self> {
        let mut lines = headers.get_all(name).iter().peekable();
        lines.peek()?;
        let mut versions = Vec::new();
        for line in lines {
            let line = line.to_str().unwrap_or_default().trim();
            if line == "*" {
                return Some(Self::Any);
            }
            read_tags(line, comparison, &mut versions);
        }
        Some(Self::OneOf(versions))
    }

    /// Whether the condition names the `version` of a thing that exists.
    pub fn contains(&self, version: u64) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(versions) => versions.contains(&version),
        }
    }

    /// Whether the condition names a thing with this `ETag`, or without one.
    pub(crate) fn contains_etag(&self, etag: Option<&HeaderValue>) -> bool {
        let mut version = Vec::new();
        read_tags(etag.and_then(|etag| etag.to_str().ok()).unwrap_or_default(), Comparison::Weak, &mut version);
        *self == Self::Any || version.first().is_some_and(|version| self.contains(*version))
    }
}

/// Adds the versions among the tags of one `line`. A comma inside quotes belongs to its tag.
fn read_tags(line: &str, comparison: Comparison, versions: &mut Vec<u64>) {
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return;
        }
        let ignored = rest.starts_with("W/") && comparison == Comparison::Strong;
        let tag = rest.strip_prefix("W/").unwrap_or(rest);
        let (text, after) = match tag.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((",", "")), // never closed: no version reads like this
            None => tag.split_at(tag.find(',').unwrap_or(tag.len())),
        };
        let (trailing, after) = after.split_at(after.find(',').unwrap_or(after.len()));
        if !ignored && trailing.trim().is_empty() {
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

    fn conditions(name: HeaderName, lines: &[&str]) -> Conditions {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name.clone(), HeaderValue::from_str(line).unwrap());
        }
        Conditions::from_headers(&headers)
    }

    fn if_match(lines: &[&str]) -> Option<Versions> {
        conditions(IF_MATCH, lines).if_match
    }

    #[test]
    fn an_etag_is_the_quoted_version() {
        assert_eq!(etag(3), "\"3\"");
        assert_eq!(etag(u64::MAX), "\"18446744073709551615\"");
    }

    #[test]
    fn if_match_compares_strongly() {
        assert_eq!(if_match(&[]), None);
        assert_eq!(if_match(&["*"]), Some(Versions::Any));
        assert!(Versions::Any.contains(7));
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
            assert_eq!(if_match(lines), Some(Versions::OneOf(matching.to_vec())), "{lines:?}");
        }
        assert!(if_match(&["\"3\""]).unwrap().contains(3));
        assert!(!if_match(&["\"3\""]).unwrap().contains(4));
    }

    #[test]
    fn if_none_match_compares_weakly() {
        let read = |lines: &[&str]| conditions(IF_NONE_MATCH, lines).if_none_match;
        assert_eq!(read(&[]), None);
        assert_eq!(read(&["*"]), Some(Versions::Any));
        assert_eq!(read(&["W/\"3\", \"4\"", "5"]), Some(Versions::OneOf(vec![3, 4, 5])));
        let some = read(&["W/\"3\""]).unwrap();
        assert!(some.contains_etag(Some(&etag(3))) && some.contains_etag(Some(&HeaderValue::from_static("W/\"3\""))));
        assert!(!some.contains_etag(Some(&etag(4))) && !some.contains_etag(None));
        assert!(Versions::Any.contains_etag(None));
    }
}
