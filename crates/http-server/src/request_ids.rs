//! The names of one request: its id, which its caller sees and the logs carry, and its place in a distributed trace.
//!
//! Both are the caller's if they are valid, else made here. They travel as one request extension and are extracted by
//! handlers as [`RequestId`] and [`TraceParent`].

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::str;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::ApiError;

/// The header that carries a request's id, both ways.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header that carries a request's place in a trace (W3C Trace Context).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest id taken from a caller: it is repeated in the answer and in every log line.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// A request's id: 1 to 128 characters of `A-Z a-z 0-9 . _ - : / + =`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default() // always ASCII
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    fn from_caller(headers: &HeaderMap) -> Option<Self> {
        let id = headers.get(X_REQUEST_ID)?;
        let valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-:/+=".contains(byte);
        let length_fits = (1..=MAX_REQUEST_ID_BYTES).contains(&id.len());
        (length_fits && id.as_bytes().iter().all(valid)).then(|| Self(id.clone()))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A place in a distributed trace. Displays as the header's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The whole trace; not 0.
    pub trace_id: u128,
    /// The span that caused this work; not 0.
    pub parent_id: u64,
    /// Bit 0: the caller records the trace.
    pub flags: u8,
}

impl TraceParent {
    /// Reads `00-<32 hex digits>-<16>-<2>`, lower case, neither id zero; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lower_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if version != "00" || parts.next().is_some() || (trace.len(), parent.len(), flags.len()) != (32, 16, 2) {
            return None;
        }
        if ![trace, parent, flags].into_iter().all(lower_hex) {
            return None;
        }
        let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let parent_id = u64::from_str_radix(parent, 16).ok().filter(|id| *id != 0)?;
        Some(Self { trace_id, parent_id, flags: u8::from_str_radix(flags, 16).ok()? })
    }

    fn from_caller(headers: &HeaderMap) -> Option<Self> {
        Self::parse(str::from_utf8(headers.get(TRACEPARENT)?.as_bytes()).ok()?)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&self.trace_id.to_be_bytes(), &mut text[3..35]);
        write_hex(&self.parent_id.to_be_bytes(), &mut text[36..52]);
        write_hex(&[self.flags], &mut text[53..]);
        f.write_str(str::from_utf8(&text).unwrap_or_default()) // always ASCII
    }
}

/// Writes two digits for each byte. It is done twice for every request that writes; the formatter takes twice as long.
fn write_hex(bytes: &[u8], digits: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, digits) in bytes.iter().zip(digits.as_chunks_mut().0) {
        *digits = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]];
    }
}

/// Both names of one request, as they stand in its extensions.
#[derive(Debug, Clone)]
pub struct RequestNames {
    /// The request's id.
    pub request_id: RequestId,
    /// Its place in a trace.
    pub trace_parent: TraceParent,
}

/// Makes names for requests that bring none.
///
/// A keyed hash of a counter: as random as its key, which the operating system gave, and without a system call for
/// each request.
#[derive(Debug, Default)]
pub(crate) struct NameSource {
    key: RandomState,
    counter: AtomicU64,
}

impl NameSource {
    /// The names of the request with `headers`.
    pub(crate) fn names(&self, headers: &HeaderMap) -> RequestNames {
        RequestNames {
            request_id: RequestId::from_caller(headers).unwrap_or_else(|| self.request_id()),
            trace_parent: TraceParent::from_caller(headers).unwrap_or_else(|| self.trace_parent()),
        }
    }

    fn request_id(&self) -> RequestId {
        let id = uuid::Builder::from_random_bytes(self.random_u128().to_ne_bytes()).into_uuid();
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let text = id.hyphenated().encode_lower(&mut text);
        RequestId(HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-")))
    }

    fn trace_parent(&self) -> TraceParent {
        let parent_id = self.key.hash_one(self.counter.fetch_add(1, Ordering::Relaxed)).max(1);
        TraceParent { trace_id: self.random_u128().max(1), parent_id, flags: 0 }
    }

    fn random_u128(&self) -> u128 {
        let [first, second] =
            [(); 2].map(|()| u128::from(self.key.hash_one(self.counter.fetch_add(1, Ordering::Relaxed))));
        first << 64 | second
    }
}

impl<S: Sync> FromRequestParts<S> for RequestNames {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        parts.extensions.get().cloned().ok_or_else(|| {
            tracing::error!("a route stands outside http_server::finish");
            ApiError::internal()
        })
    }
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        RequestNames::from_request_parts(parts, state).await.map(|names| names.request_id)
    }
}

impl<S: Sync> FromRequestParts<S> for TraceParent {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        RequestNames::from_request_parts(parts, state).await.map(|names| names.trace_parent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_bytes(value.as_bytes()).unwrap())])
    }

    #[test]
    fn a_valid_request_id_is_kept_and_another_replaced() {
        let source = NameSource::default();
        let longest = "x".repeat(128);
        for id in ["a", "req-1.2_3:4/5+6=", &longest] {
            assert_eq!(source.names(&headers(X_REQUEST_ID, id)).request_id.as_str(), id);
        }
        for id in ["", "a b", "a\"b", "a,b", "é", &"x".repeat(129)] {
            let made = source.names(&headers(X_REQUEST_ID, id)).request_id;
            let uuid = uuid::Uuid::parse_str(made.as_str()).unwrap();
            assert_eq!(uuid.get_version_num(), 4, "{id}");
        }
        let [first, second] = [(); 2].map(|()| source.names(&HeaderMap::new()));
        assert_ne!(first.request_id, second.request_id);
        assert_ne!(first.trace_parent.trace_id, second.trace_parent.trace_id);
        assert_eq!(TraceParent::parse(&first.trace_parent.to_string()), Some(first.trace_parent));
    }

    #[test]
    fn a_valid_trace_parent_is_kept_and_another_replaced() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let kept = NameSource::default().names(&headers(TRACEPARENT, text)).trace_parent;
        assert_eq!((kept.to_string().as_str(), kept.flags), (text, 1));
        for text in [
            "",
            "00",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
    }
}
