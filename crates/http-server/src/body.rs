//! A JSON request body as a typed struct, read within bounds.
//!
//! A well-formed body is read in one pass. Only a body that fails is read again, for an error that names the mistake
//! (`body_error.rs`). Fields that the type does not have are ignored, so that a client may send what a later version
//! knows.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;

use crate::body_error::explain;
use crate::error::ApiError;
use crate::guard::SEC_FETCH_SITE;

/// The largest body: the largest sensible one is below 2 kB, and every connection may hold one in memory.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// How long a body may take from the moment its head was read: 64 KiB at the pace of a bad mobile line.
pub const BODY_READ_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest piece of a caller's own text that an error repeats.
const MAX_REPEATED_CHARS: usize = 64;

/// Extracts a JSON object of at most [`MAX_BODY_BYTES`] into `T`, or answers 400, 408, 413 or 415.
#[derive(Debug, Clone, Copy)]
pub struct JsonBody<T>(
    /// What the body held.
    pub T,
);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = read(body).await?;
        check_headers(&parts.headers)?;
        // Serde would take an array for a struct, field by field: only an object is meant.
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
            && let Ok(value) = serde_json::from_slice(&bytes)
        {
            return Ok(Self(value));
        }
        Err(explain::<T>(&bytes))
    }
}

/// The whole of `body`, or 400, 408 or 413.
async fn read(mut body: Body) -> Result<Bytes, ApiError> {
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_large()); // the Content-Length says so
    }
    let collected = {
        let mut collecting = pin!(collect(&mut body));
        match poll_fn(|context| Poll::Ready(collecting.as_mut().poll(context))).await {
            // Nearly always it came with the head, and there is nothing to time.
            Poll::Ready(collected) => Ok(collected),
            Poll::Pending => tokio::time::timeout(BODY_READ_TIMEOUT, collecting).await,
        }
    };
    match collected {
        Ok(Some(result)) => result,
        Ok(None) => Err(too_large()),
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            format!("the body did not arrive within {} seconds", BODY_READ_TIMEOUT.as_secs()),
        )),
    }
}

/// Reads to the end; `None` once there is more than [`MAX_BODY_BYTES`].
async fn collect(body: &mut Body) -> Option<Result<Bytes, ApiError>> {
    let mut first = Bytes::new(); // nearly always the only one, and then it is not copied
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Some(Err(ApiError::bad_request("incomplete_body", "the body broke off before its end")));
        };
        let Ok(data) = frame.into_data() else { continue }; // trailers
        if first.len() + all.len() + data.len() > MAX_BODY_BYTES {
            return None;
        }
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Some(Ok(if all.is_empty() { first } else { all.freeze() }))
}

fn too_large() -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        format!("the body must be at most {MAX_BODY_BYTES} bytes"),
    )
}

/// 415 unless the headers call the body plain JSON. A browser lets any page send a body without a media type, or with
/// one of a form's, and asks first (CORS) before it sends JSON. So only a caller that is no browser may leave it out.
fn check_headers(headers: &HeaderMap) -> Result<(), ApiError> {
    let unsupported = |field, text: String| {
        Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", text).with_field(field))
    };
    if let Some(encoding) = headers.get(CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let field = "Content-Encoding";
        return unsupported(field, "the body must not be compressed: Content-Encoding is not supported".to_owned());
    }
    if let Some(kind) = headers.get_all(CONTENT_TYPE).iter().find(|kind| !is_json(kind.as_bytes())) {
        let kind = String::from_utf8_lossy(kind.as_bytes());
        return unsupported("Content-Type", format!("the body must be application/json, not {}", shorten(&kind)));
    }
    let is_browser = headers.contains_key(ORIGIN) || headers.contains_key(SEC_FETCH_SITE);
    if is_browser && !headers.contains_key(CONTENT_TYPE) {
        return unsupported(
            "Content-Type",
            "the body must be application/json; the Content-Type is missing".to_owned(),
        );
    }
    Ok(())
}

/// Whether `content_type` is `application/json` or `application/…+json`, with or without parameters.
pub(crate) fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let Some((prefix, subtype)) = essence.split_at_checked("application/".len()) else { return false };
    let suffix = subtype.len().checked_sub("+json".len()).and_then(|start| subtype.get(start..));
    prefix.eq_ignore_ascii_case(b"application/")
        && (subtype.eq_ignore_ascii_case(b"json") || suffix.is_some_and(|s| s.eq_ignore_ascii_case(b"+json")))
}

/// `text`, cut off where a caller's text gets too long to repeat in an answer.
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
