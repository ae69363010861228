//! The id of a request: `X-Request-Id` of the request and of its response, and a field of every log line about it.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken from a caller. The response and the log lines repeat the id.
pub(crate) const MAX_REQUEST_ID_BYTES: usize = 128;

/// Returns the id that the caller gave in `headers`, or a random UUID if there is none of 1 to 128 characters of
/// `A-Z a-z 0-9 . _ - : / + =`.
pub(crate) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_valid = |id: &&HeaderValue| {
        (1..=MAX_REQUEST_ID_BYTES).contains(&id.len())
            && id.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-:/+=".contains(byte))
    };
    headers.get(X_REQUEST_ID).filter(is_valid).cloned().unwrap_or_else(|| {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let text = Uuid::new_v4().hyphenated().encode_lower(&mut text);
        HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_request_id_is_kept_and_another_replaced() {
        let id_for = |id: &str| {
            let value = HeaderValue::from_bytes(id.as_bytes()).unwrap();
            request_id(&HeaderMap::from_iter([(X_REQUEST_ID, value)]))
        };
        let longest = "x".repeat(128);
        for id in ["a", "req-1.2_3:4/5+6=", &longest] {
            assert_eq!(id_for(id), id);
        }
        for id in ["", "a b", "a\"b", "a,b", "é", &"x".repeat(129)] {
            let uuid = Uuid::parse_str(id_for(id).to_str().unwrap()).unwrap();
            assert_eq!(uuid.get_version_num(), 4, "{id}");
        }
        let [first, second] = [(); 2].map(|()| request_id(&HeaderMap::new()));
        assert_ne!(first, second);
    }
}
