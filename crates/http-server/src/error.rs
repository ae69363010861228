//! The one error form every response uses: `{"error": text, "code": code}`, and `"field"` where one field is at fault.
//!
//! `error` is for people and `code` for programs. Only texts written for the caller go in here: a driver's message or
//! a panic's is logged, and the caller gets [`ApiError::internal`].

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// The media type of every answer.
pub const APPLICATION_JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer that says what went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// What went wrong, for programs: `snake_case`, and stable.
    pub code: &'static str,
    /// What went wrong, for people.
    pub text: Cow<'static, str>,
    /// The field, header or parameter at fault, if it is one.
    pub field: Option<Cow<'static, str>>,
    /// When to try again, in seconds.
    pub retry_after_s: Option<u32>,
}

impl ApiError {
    /// An error with `status`, `code` and `text`, about no field in particular.
    pub fn new(status: StatusCode, code: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, text: text.into(), field: None, retry_after_s: None }
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

    /// 403: understood, and refused by a rule.
    pub fn forbidden(code: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, text)
    }

    /// 404: there is no such thing.
    pub fn not_found(code: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, text)
    }

    /// 409: the thing is in a state that does not allow it.
    pub fn conflict(code: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, code, text)
    }

    /// 412: the condition of `If-Match` or `If-None-Match` does not hold.
    pub fn precondition_failed(code: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, code, text)
    }

    /// 503 with `Retry-After`: not now.
    pub fn unavailable(code: &'static str, text: impl Into<Cow<'static, str>>, retry_after_s: u32) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, text).with_retry_after_s(retry_after_s)
    }

    /// 500 that gives nothing away; log the cause where it is known.
    pub fn internal() -> Self {
        Self::of_status(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The same error, about `field`.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// The same error, asking the caller to wait `seconds` before another try.
    #[must_use]
    pub fn with_retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The error that stands for a bare `status`: one that no handler made, such as an unknown path.
    pub(crate) fn of_status(status: StatusCode) -> Self {
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

    /// The JSON text this error is sent as.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Form<'a> {
            error: &'a str,
            code: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            field: Option<&'a str>,
        }
        serde_json::to_vec(&Form { error: &self.text, code: self.code, field: self.field.as_deref() })
            .unwrap_or_default() // three texts always serialize
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, APPLICATION_JSON);
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A response with `status` and `value` as its JSON body; 500 if `value` does not serialize, which is logged.
pub fn json_response(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => {
            let mut response = Response::new(Body::from(text));
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, APPLICATION_JSON);
            response
        }
        Err(error) => {
            tracing::error!(%error, "a response does not serialize");
            ApiError::internal().into_response()
        }
    }
}
