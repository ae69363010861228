//! `Prefer: wait` (RFC 7240), and the names of the headers about waiting.

use axum::http::{HeaderMap, HeaderName};

/// The header with a caller's preferences.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The header that names the preferences that were applied.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The header with the version of an account's latest event.
pub const ACCOUNT_VERSION: HeaderName = HeaderName::from_static("account-version");

/// Returns the seconds of `Prefer: wait=S`. `None` if no header has the preference, and if it is 0 or malformed. Of several, the
/// first one counts (RFC 7240, 2). A number that is too large for the type counts as the largest.
pub fn prefer_wait(headers: &HeaderMap) -> Option<u64> {
    let lines = headers.get_all(PREFER).iter().map(|line| line.as_bytes());
    let preferences = lines.flat_map(|line| split_unquoted(line, b','));
    let values = preferences.filter_map(|preference| {
        // Parameters follow on a semicolon.
        let preference = split_unquoted(preference, b';').next()?;
        let mut parts = split_unquoted(preference, b'=');
        let is_wait = parts.next()?.trim_ascii().eq_ignore_ascii_case(b"wait");
        is_wait.then(|| parts.next().filter(|_| parts.next().is_none()).and_then(parse_seconds))
    });
    { values }.next().flatten()
}

/// Parses the value of `wait`: digits, bare or in double quotes.
fn parse_seconds(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii();
    let digits = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Digits that do not parse are too many.
    let seconds = str::from_utf8(digits).ok()?.parse().unwrap_or(u64::MAX);
    Some(seconds).filter(|seconds| *seconds > 0)
}

/// Splits `text` at each `separator` that is not part of a quoted string.
fn split_unquoted(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |byte| {
        let is_literal = std::mem::take(&mut is_escaped);
        match byte {
            b'\\' if is_quoted && !is_literal => is_escaped = true,
            b'"' if !is_literal => is_quoted = !is_quoted,
            _ => {}
        }
        *byte == separator && !is_quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_is_the_first_preference_of_that_name() {
        for (lines, expected) in [
            (&[][..], None),
            (&["wait=5"], Some(5)),
            (&["Wait = 5"], Some(5)),
            (&["wait=\"5\""], Some(5)),
            (&["wait=05"], Some(5)),
            (&["respond-async, wait=10"], Some(10)),
            (&[", ,\twait=10 ; a=b; c"], Some(10)),
            (&["return=minimal", "handling=lenient,wait=7"], Some(7)),
            (&["foo=\"a, wait=9; \\\", wait=8\", wait=7"], Some(7)),
            (&["foo; wait=9"], None),
            (&["wait=1, wait=2"], Some(1)),
            (&["wait=3", "wait=2"], Some(3)),
            (&["wait=x, wait=2"], None),
            (&["wait=99999999999999999999999"], Some(u64::MAX)),
            (&["wait=0"], None),
            (&["wait=0", "wait=2"], None),
            (&["wait"], None),
            (&["wait="], None),
            (&["wait=\"\""], None),
            (&["wait=\"5"], None),
            (&["wait=5\""], None),
            (&["wait=-1"], None),
            (&["wait=+1"], None),
            (&["wait=1.5"], None),
            (&["wait=5s"], None),
            (&["wait=1=2"], None),
            (&["wait=1 2"], None),
            (&["wait=\u{663}"], None),
            (&["waiting=5"], None),
            (&[""], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(PREFER, line.as_bytes().try_into().unwrap());
            }
            assert_eq!(prefer_wait(&headers), expected, "{lines:?}");
        }
    }
}
