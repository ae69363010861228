//! Cross-origin requests (CORS), which are refused unless an operator names the origins.

use std::str::FromStr;
use std::time::Duration;

use axum::http::header::{
    AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderName, HeaderValue, Method, Uri};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::idempotency::{IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED};
use crate::limits::{RATE_LIMIT_LIMIT, RATE_LIMIT_REMAINING, RATE_LIMIT_RESET};
use crate::prefer::{ACCOUNT_VERSION, PREFER, PREFERENCE_APPLIED};
use crate::request_id::X_REQUEST_ID;

/// The header of the W3C trace context, which pages may send.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// How long a browser may cache the response to a preflight.
const MAX_AGE: Duration = Duration::from_secs(600);

/// The origins whose pages may call: `*`, or origins such as `https://example.com:8443`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigin {
    /// `*`: any page.
    Any,
    /// Pages of these origins.
    List(Vec<HeaderValue>),
}

impl FromStr for CorsOrigin {
    type Err = String;

    /// Parses `*`, one origin, or several with commas between them.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "*" {
            return Ok(Self::Any);
        }
        text.split(',').map(|origin| parse_origin(origin.trim())).collect::<Result<_, _>>().map(Self::List)
    }
}

/// Parses an origin in the form that browsers send: a scheme, a host and an optional port.
fn parse_origin(text: &str) -> Result<HeaderValue, String> {
    let refuse = || format!("`{text}` is no origin: expected `*`, or scheme and host such as https://example.com:8443");
    let uri: Uri = text.parse().map_err(|_| refuse())?;
    let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme)).ok_or_else(refuse)?;
    let authority = uri.authority().ok_or_else(refuse)?.as_str();
    // The text is compared with the header of a browser, so no other spelling can match.
    let origin = format!("{scheme}://{authority}").to_ascii_lowercase();
    if origin != text || authority.contains(['@', '*']) {
        return Err(refuse());
    }
    HeaderValue::try_from(origin).map_err(|_| refuse())
}

/// Returns the layer that answers preflights and adds the CORS headers for `origin`.
pub(crate) fn cors_layer(origin: CorsOrigin) -> CorsLayer {
    let origin = match origin {
        CorsOrigin::Any => Any.into(),
        CorsOrigin::List(origins) => AllowOrigin::list(origins),
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            AUTHORIZATION,
            IF_MATCH,
            IF_NONE_MATCH,
            CONTENT_TYPE,
            X_REQUEST_ID,
            TRACEPARENT,
            ACCOUNT_VERSION,
            PREFER,
            IDEMPOTENCY_KEY,
        ])
        .expose_headers([
            ETAG,
            LOCATION,
            X_REQUEST_ID,
            RETRY_AFTER,
            ACCOUNT_VERSION,
            PREFERENCE_APPLIED,
            IDEMPOTENT_REPLAYED,
            WWW_AUTHENTICATE,
            RATE_LIMIT_LIMIT,
            RATE_LIMIT_REMAINING,
            RATE_LIMIT_RESET,
        ])
        .max_age(MAX_AGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_browsers_send_them() {
        assert_eq!("*".parse(), Ok(CorsOrigin::Any));
        for text in ["http://localhost:3000", "https://a.example,https://b.example:8443", "http://[::1]:80, http://x"] {
            let origins = text.split(',').map(|origin| HeaderValue::from_str(origin.trim()).unwrap()).collect();
            assert_eq!(text.parse(), Ok(CorsOrigin::List(origins)));
        }
        for text in [
            "",
            "example.com",
            "https://",
            "https://a/",
            "https://a/b",
            "ftp://a",
            "HTTPS://A",
            "http://a,",
            "http://u@a",
            "http://*.a",
            "*,http://a",
        ] {
            let error = text.parse::<CorsOrigin>().unwrap_err();
            assert!(error.contains("is no origin: expected"), "{text}: {error}");
        }
    }
}
