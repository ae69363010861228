//! Conditional requests: `ETag`, `If-Match` and `If-None-Match` (RFC 9110, 13.1).
//!
//! `If-Match` uses the strong comparison, in which a weak tag matches nothing. `If-None-Match` uses the weak comparison.
//! A tag that cannot be parsed matches nothing. Tags without quotes are accepted.

use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue};

/// Returns the `ETag` of `version`: `"3"`.
pub fn etag(version: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// The tags that a condition lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntityTags {
    /// `*`: any tag, as long as the resource exists.
    Any,
    /// The text between the quotes of each tag. An empty list matches nothing.
    List(Vec<String>),
}

/// Parses `If-Match` for the strong comparison. Returns `None` if `headers` have none.
pub fn if_match(headers: &HeaderMap) -> Option<EntityTags> {
    EntityTags::parse(headers.get_all(IF_MATCH).iter(), false)
}

/// Parses `If-None-Match` for the weak comparison. Returns `None` if `headers` have none.
pub fn if_none_match(headers: &HeaderMap) -> Option<EntityTags> {
    EntityTags::parse(headers.get_all(IF_NONE_MATCH).iter(), true)
}

impl EntityTags {
    /// Parses the `lines` of one header, whose lists count as one list.
    fn parse<'a>(lines: impl Iterator<Item = &'a HeaderValue>, weak: bool) -> Option<Self> {
        let mut lines = lines.peekable();
        lines.peek()?;
        let mut tags = Vec::new();
        for line in lines {
            let line = line.to_str().unwrap_or_default().trim();
            if line == "*" {
                return Some(Self::Any);
            }
            parse_tags(line, weak, &mut tags);
        }
        Some(Self::List(tags))
    }

    /// Whether the tags match a resource with this `ETag`, or without one, in the weak comparison.
    pub(crate) fn match_weakly(&self, etag: Option<&HeaderValue>) -> bool {
        let Self::List(tags) = self else { return true };
        let etag = etag.and_then(|etag| etag.to_str().ok()).unwrap_or_default();
        let etag = etag.strip_prefix("W/").unwrap_or(etag);
        etag.strip_prefix('"')
            .and_then(|etag| etag.strip_suffix('"'))
            .is_some_and(|etag| tags.iter().any(|tag| tag == etag))
    }
}

/// Adds the tags of one `line` to `tags`; weak tags only if `weak` is true. A comma inside quotes belongs to its tag.
fn parse_tags(line: &str, weak: bool, tags: &mut Vec<String>) {
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return;
        }
        let is_weak = rest.starts_with("W/");
        let tag = rest.strip_prefix("W/").unwrap_or(rest);
        let (text, after) = match tag.strip_prefix('"').map(|quoted| quoted.split_once('"')) {
            Some(Some(quoted)) => quoted,
            Some(None) => return, // the closing quote is missing
            None => tag.split_at(tag.find(',').unwrap_or(tag.len())),
        };
        let (trailing, after) = after.split_at(after.find(',').unwrap_or(after.len()));
        if (weak || !is_weak) && trailing.trim().is_empty() {
            tags.push(text.trim_end().to_owned());
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn headers(name: HeaderName, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name.clone(), HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    fn list(tags: &[&str]) -> Option<EntityTags> {
        Some(EntityTags::List(tags.iter().map(|tag| (*tag).to_owned()).collect()))
    }

    #[test]
    fn an_etag_is_the_quoted_version() {
        assert_eq!(etag(3), "\"3\"");
        assert_eq!(etag(u64::MAX), "\"18446744073709551615\"");
    }

    #[test]
    fn if_match_compares_strongly() {
        let read = |lines: &[&str]| if_match(&headers(IF_MATCH, lines));
        assert_eq!(read(&[]), None);
        assert_eq!(read(&["*"]), Some(EntityTags::Any));
        for (lines, matching) in [
            (&["\"3\""][..], &["3"][..]),
            (&["\"3\", \"4\""], &["3", "4"]),
            (&["\"3\",, \"4\" ,\"5\""], &["3", "4", "5"]),
            (&["\"3\"", "\"5\""], &["3", "5"]),
            (&["3"], &["3"]),
            (&["3, 4"], &["3", "4"]),
            (&["W/\"3\""], &[]),
            (&["W/\"3\", \"4\""], &["4"]),
            (&["\"a,3,b\", \"4\""], &["a,3,b", "4"]),
            (&["\"3"], &[]),
            (&["\"3\"x"], &[]),
            (&["\"3\"x, \"4\""], &["4"]),
            (&[""], &[]),
        ] {
            assert_eq!(read(lines), list(matching), "{lines:?}");
        }
    }

    #[test]
    fn if_none_match_compares_weakly() {
        let read = |lines: &[&str]| if_none_match(&headers(IF_NONE_MATCH, lines));
        assert_eq!(read(&[]), None);
        assert_eq!(read(&["*"]), Some(EntityTags::Any));
        assert_eq!(read(&["W/\"3\", \"4\"", "5"]), list(&["3", "4", "5"]));
        let some = read(&["W/\"3\""]).unwrap();
        assert!(some.match_weakly(Some(&etag(3))) && some.match_weakly(Some(&HeaderValue::from_static("W/\"3\""))));
        assert!(!some.match_weakly(Some(&etag(4))) && !some.match_weakly(None));
        assert!(EntityTags::Any.match_weakly(None));
    }
}
