//! The standard error: `{"error": text, "code": code}`, and `"field"` if one field is at fault.
//!
//! `error` is for people and `code` for programs. A driver's message and a panic's message are logged, and the caller gets a 500
//! without them.

use std::borrow::Cow;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::audit::ErrorCode;

/// The media type of every response.
pub const APPLICATION_JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An error as a response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiError {
    /// The HTTP status.
    #[serde(skip)]
    pub status: StatusCode,
    /// The cause, for people.
    #[serde(rename = "error")]
    pub text: Cow<'static, str>,
    /// The cause, for programs: `snake_case`, and stable.
    pub code: &'static str,
    /// The field, header or parameter at fault, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<Cow<'static, str>>,
    /// How long the caller should wait before a retry, in seconds.
    #[serde(skip)]
    pub retry_after_s: Option<u32>,
    /// How the caller authenticates: `WWW-Authenticate` (RFC 6750, 3).
    #[serde(skip)]
    pub challenge: Option<Cow<'static, str>>,
}

impl ApiError {
    /// Returns an error with `status`, `code` and `text`, without a field.
    pub fn new(status: StatusCode, code: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, text: text.into(), field: None, retry_after_s: None, challenge: None }
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(code: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, text)
    }

    /// 400 about one field or parameter.
    pub fn invalid(
        field: impl Into<Cow<'static, str>>,
        code: &'static str,
        text: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::bad_request(code, text).with_field(field)
    }

    /// The error of a service, about `field` if it is `Some`. A 503 asks for a retry after a second: by then a queue has room, or a
    /// server has restarted.
    pub fn of_service(status: StatusCode, code: &'static str, text: String, field: Option<&'static str>) -> Self {
        let retry_after_s = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1);
        Self { field: field.map(Cow::Borrowed), retry_after_s, ..Self::new(status, code, text) }
    }

    /// 503 with `Retry-After`: the service cannot do this now.
    pub fn unavailable(code: &'static str, text: impl Into<Cow<'static, str>>, retry_after_s: u32) -> Self {
        Self { retry_after_s: Some(retry_after_s), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, text) }
    }

    /// Returns the error with `field` as the field at fault.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Returns the error for a `status` that no handler of a service made, such as the 404 of an unknown path.
    pub fn of_status(status: StatusCode) -> Self {
        let (code, text) = match status {
            StatusCode::BAD_REQUEST => ("bad_request", "the request cannot be understood"),
            StatusCode::NOT_FOUND => ("not_found", "no such path"),
            StatusCode::METHOD_NOT_ALLOWED => {
                ("method_not_allowed", "method not allowed; the Allow header names those that are")
            }
            StatusCode::REQUEST_TIMEOUT => ("request_timeout", "the request took too long to arrive"),
            StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", "the body is too large"),
            StatusCode::URI_TOO_LONG => ("uri_too_long", "the request's address is too long"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ("unsupported_media_type", "the body must be application/json"),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                ("headers_too_large", "the request's headers are too many or too large")
            }
            StatusCode::SERVICE_UNAVAILABLE => ("unavailable", "the service cannot answer now; try again"),
            status if status.is_client_error() => ("bad_request", "the request was refused"),
            _ => ("internal_error", "an error on the server's side; the logs tell more under this request id"),
        };
        Self::new(status, code, text)
    }

    /// Returns the body of the response.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default() // three texts always serialize
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&self)).into_response();
        response.extensions_mut().insert(ErrorCode(self.code));
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if let Some(challenge) = self.challenge.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
