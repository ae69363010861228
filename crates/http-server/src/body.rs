//! A JSON request body as a typed struct, read within bounds.
//!
//! A valid body is parsed once. An invalid one is parsed again, for an error that names the mistake (`body_error.rs`).
//! Fields that the type does not have are ignored, so that a client may send fields of a later version.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::body_error::explain;
use crate::error::ApiError;
use crate::guard::SEC_FETCH_SITE;

/// The largest body. The largest useful one is below 2 kB, and each connection may hold one in memory.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// How long a body may take to arrive: 64 KiB over a slow mobile connection.
pub const BODY_READ_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest part of a caller's text that an error repeats.
const MAX_REPEATED_CHARS: usize = 64;

/// Extracts a JSON object of at most [`MAX_BODY_BYTES`] into `T`, or answers 400, 408, 413 or 415.
#[derive(Debug, Clone, Copy)]
pub struct JsonBody<T>(
    /// The parsed body.
    pub T,
);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = read(body).await?;
        check_headers(&parts.headers)?;
        // Serde accepts an array for a struct, field by field; only an object is valid.
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
            && let Ok(value) = serde_json::from_slice(&bytes)
        {
            return Ok(Self(value));
        }
        Err(explain::<T>(&bytes))
    }
}

/// Reads the whole of `body`; 400, 408 or 413 if that fails.
async fn read(body: Body) -> Result<Bytes, ApiError> {
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_large()); // the Content-Length exceeds the limit
    }
    match timeout(BODY_READ_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(incomplete()),
        Err(_) => {
            let text = format!("the body did not arrive within {} seconds", BODY_READ_TIMEOUT.as_secs());
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", text))
        }
    }
}

pub(crate) fn incomplete() -> ApiError {
    ApiError::bad_request("incomplete_body", "the body broke off before its end")
}

fn too_large() -> ApiError {
    let text = format!("the body must be at most {MAX_BODY_BYTES} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", text)
}

/// Refuses a body that is not plain JSON by its headers with 415.
///
/// A browser sends a body without a media type, or with a form's, for any page, but asks first (CORS) before it sends JSON.
/// So only a caller that is not a browser may leave the media type out.
fn check_headers(headers: &HeaderMap) -> Result<(), ApiError> {
    let unsupported = |field, text: Cow<'static, str>| {
        Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", text).with_field(field))
    };
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        let text = "the body must not be compressed: Content-Encoding is not supported";
        return unsupported("Content-Encoding", text.into());
    }
    if let Some(kind) = headers.get_all(CONTENT_TYPE).iter().find(|kind| !is_json(kind.as_bytes())) {
        let kind = String::from_utf8_lossy(kind.as_bytes());
        let text = format!("the body must be application/json, not {}", shorten(&kind));
        return unsupported("Content-Type", text.into());
    }
    let is_browser = headers.contains_key(ORIGIN) || headers.contains_key(SEC_FETCH_SITE);
    if is_browser && !headers.contains_key(CONTENT_TYPE) {
        return unsupported("Content-Type", "the body must be application/json; the Content-Type is missing".into());
    }
    Ok(())
}

/// Whether `content_type` is `application/json` or `application/…+json`, with or without parameters.
pub(crate) fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    let Some(subtype) = essence.strip_prefix(b"application/") else { return false };
    subtype == b"json" || subtype.ends_with(b"+json")
}

/// Cuts `text` to the length that an error repeats.
pub(crate) fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_REPEATED_CHARS) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_media_types_are_told_from_others() {
        for kind in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/merge-patch+json",
            " application/json ;x",
        ] {
            assert!(is_json(kind.as_bytes()), "{kind}");
        }
        for kind in ["", "json", "text/json", "text/plain", "application/jsonp", "application/x-www-form-urlencoded"] {
            assert!(!is_json(kind.as_bytes()), "{kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_is_given_up() {
        let (_sender, body) = http_body_util::channel::Channel::<Bytes, std::io::Error>::new(1);
        let error = read(Body::new(body)).await.unwrap_err();
        assert_eq!((error.status, error.code), (StatusCode::REQUEST_TIMEOUT, "request_timeout"));
        assert_eq!(error.text, "the body did not arrive within 15 seconds");
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_put_together_up_to_the_limit() {
        for (pieces, fits) in [(0, true), (1, true), (3, true), (64, true), (65, false)] {
            let (mut sender, body) = http_body_util::channel::Channel::<Bytes, std::io::Error>::new(100);
            for _ in 0..pieces {
                sender.send_data(Bytes::from(vec![b' '; 1024])).await.unwrap();
            }
            drop(sender);
            match read(Body::new(body)).await {
                Ok(bytes) => assert!(fits && bytes.len() == pieces * 1024),
                Err(error) => assert!(!fits && error.code == "body_too_large"),
            }
        }
    }
}
