//! Idempotency keys: the `Idempotency-Key` header (IETF HTTPAPI draft), and the fingerprint of the request it belongs to.
//!
//! A service stores key and fingerprint with the answer, in the transaction of the write. The same key with the same
//! fingerprint is answered with the stored answer, and with another fingerprint it is refused.

use std::sync::Arc;

use access::Caller;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use sha2::{Digest, Sha256};

use crate::error::ApiError;

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The header of an answer that was stored with an earlier request.
pub(crate) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The longest key. The database keeps each key, and longer ones identify a request no better.
pub(crate) const MAX_KEY_BYTES: usize = 255;

/// An idempotency key and its owner: two callers with the same key are two requests. The order is the one in which databases lock keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey {
    /// The name of the caller; empty while callers are not authenticated.
    pub caller: Arc<str>,
    /// The key, without quotes around it: 1 to 255 visible ASCII characters.
    pub key: String,
}

impl IdempotencyKey {
    /// Returns the owner and the key.
    pub fn columns(&self) -> (&str, &str) {
        (&self.caller, &self.key)
    }
}

/// A request with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedRequest {
    /// The key and its owner.
    pub key: IdempotencyKey,
    /// The SHA-256 of the method, the path with its query, and the fields.
    pub fingerprint: [u8; 32],
}

/// Extracts the idempotency key of a request, if it has one, or answers 400.
#[derive(Debug, Clone)]
pub struct Idempotency(Option<(IdempotencyKey, Sha256)>);

impl Idempotency {
    /// Returns the key with the fingerprint of the request, or `None` if the request has no key.
    ///
    /// `fields` are the known fields of the body as they were understood, in a fixed order. A field that is `None` is not
    /// part of the fingerprint, so a field that a later version adds at the end does not change it.
    pub fn of_fields(self, fields: &[Option<&str>]) -> Option<Arc<KeyedRequest>> {
        let (key, mut hash) = self.0?;
        for (place, field) in (0_u32..).zip(fields) {
            if let Some(field) = field {
                hash.update(place.to_be_bytes());
                update(&mut hash, field);
            }
        }
        Some(Arc::new(KeyedRequest { key, fingerprint: hash.finalize().into() }))
    }
}

impl<S: Sync> FromRequestParts<S> for Idempotency {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let mut lines = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let key = match (lines.next(), lines.next()) {
            (None, _) => return Ok(Self(None)),
            (Some(_), Some(_)) => return Err(invalid("the Idempotency-Key header is given more than once")),
            (Some(line), None) => parse(line)
                .ok_or_else(|| invalid("Idempotency-Key must have 1 to 255 visible ASCII characters and no space"))?,
        };
        let mut hash = Sha256::new();
        update(&mut hash, parts.method.as_str());
        update(&mut hash, parts.uri.path_and_query().map_or("", |path| path.as_str()));
        let caller = parts.extensions.get::<Caller>().map_or_else(Arc::default, |caller| Arc::clone(&caller.name));
        Ok(Self(Some((IdempotencyKey { caller, key }, hash))))
    }
}

/// Adds `text` with its length in front, so that no two lists of texts have the same fingerprint.
fn update(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text);
}

/// Returns the key in `line`, without one pair of double quotes around it.
fn parse(line: &HeaderValue) -> Option<String> {
    let line = line.as_bytes();
    let key = line.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(line);
    let is_valid = (1..=MAX_KEY_BYTES).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
    String::from_utf8(key.to_vec()).ok().filter(|_| is_valid)
}

pub(crate) fn invalid(text: &'static str) -> ApiError {
    ApiError::invalid("Idempotency-Key", "invalid_idempotency_key", text)
}

/// Returns `response`, with `Idempotent-Replayed: true` if `is_replay`.
pub fn with_replay_header(mut response: Response, is_replay: bool) -> Response {
    if is_replay {
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    async fn extract(method: &str, uri: &str, lines: &[&[u8]]) -> Result<Idempotency, ApiError> {
        let mut request = Request::builder().method(method).uri(uri).body(()).unwrap();
        for line in lines {
            request.headers_mut().append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(line).unwrap());
        }
        Idempotency::from_request_parts(&mut request.into_parts().0, &()).await
    }

    #[tokio::test]
    async fn a_key_is_visible_ascii_with_or_without_quotes() {
        let visible: String = ('!'..='~').collect();
        let longest = "k".repeat(255);
        let quoted = format!("\"{longest}\"");
        for (line, key) in [
            ("a", "a"),
            ("\"a\"", "a"),
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            (&visible, &visible),
            (&longest, &longest),
            (&quoted, &longest),
            ("a\"b", "a\"b"),
            ("\"a", "\"a"),
            ("\"\"a\"\"", "\"a\""),
            ("a,b", "a,b"),
        ] {
            let request = extract("POST", "/x", &[line.as_bytes()]).await.unwrap().of_fields(&[]).unwrap();
            assert_eq!(request.key.key, key, "{line}");
        }
        assert!(extract("POST", "/x", &[]).await.unwrap().of_fields(&[]).is_none());
    }

    #[tokio::test]
    async fn anything_else_is_refused_and_so_are_two() {
        let too_long = "k".repeat(256);
        for lines in [
            &[&b""[..]][..],
            &[b"\"\""],
            &[b"a b"],
            &[b"\"a\"; p=1"],
            &[b"a\tb"],
            &["é".as_bytes()],
            &[b"\xff"],
            &[too_long.as_bytes()],
            &[b"a", b"a"],
        ] {
            let error = extract("POST", "/x", lines).await.unwrap_err();
            assert_eq!((error.status.as_u16(), error.code), (400, "invalid_idempotency_key"), "{lines:?}");
            assert_eq!(error.field.as_deref(), Some("Idempotency-Key"));
        }
    }

    #[tokio::test]
    async fn a_fingerprint_is_of_method_path_query_and_fields() {
        let mut seen = Vec::new();
        for (method, uri, fields) in [
            ("POST", "/x", &[][..]),
            ("PUT", "/x", &[]),
            ("POST", "/x?a=1", &[]),
            ("POST", "/x", &[Some("a")]),
            ("POST", "/x", &[None, Some("a")]),
            ("POST", "/x", &[Some("a"), Some("b")]),
            ("POST", "/x", &[Some("ab")]),
            ("POST", "/x", &[Some("")]),
        ] {
            let of = async || extract(method, uri, &[b"k"]).await.unwrap().of_fields(fields).unwrap().fingerprint;
            let fingerprint = of().await;
            assert_eq!(of().await, fingerprint);
            assert!(!seen.contains(&fingerprint), "{method} {uri} {fields:?}");
            seen.push(fingerprint);
        }
        let of = async |fields| extract("POST", "/x", &[b"k"]).await.unwrap().of_fields(fields);
        assert_eq!(of(&[Some("a")]).await, of(&[Some("a"), None]).await, "as before a field was added");
    }
}
