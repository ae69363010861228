//! Query parameters as a struct of `Option<String>` fields: axum's `Query`, with JSON errors and strict decoding.

use std::borrow::Cow;
use std::error::Error as _;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use crate::body::shorten;
use crate::error::ApiError;

/// Extracts the query string into `T`, whose fields are `Option<String>`, or answers 400. The handler decides which
/// parameters are required. Parameters that `T` does not name are ignored.
#[derive(Debug, Clone, Copy)]
pub struct QueryParams<T>(
    /// The parameters.
    pub T,
);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        check_encoding(parts.uri.query().unwrap_or_default())?;
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => Err(refuse(&rejection.source().map(ToString::to_string).unwrap_or_default())),
        }
    }
}

/// Refuses what axum decodes leniently, a `%` without two hex digits and bytes that are not UTF-8: an id that was damaged
/// on its way must not be looked up.
pub(crate) fn check_encoding(query: &str) -> Result<(), ApiError> {
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let Some(problem) = encoding_problem(name) {
            return Err(ApiError::bad_request("invalid_query", format!("a query parameter's name {problem}")));
        }
        if let Some(problem) = encoding_problem(value) {
            let name = shorten(&percent_decode_str(name).decode_utf8_lossy()).into_owned();
            let text = format!("query parameter {name} {problem}");
            return Err(ApiError::invalid(name, "invalid_query", text));
        }
    }
    Ok(())
}

fn encoding_problem(text: &str) -> Option<&'static str> {
    if !has_valid_escapes(text) {
        return Some("holds a % that two hex digits do not follow");
    }
    percent_decode_str(text).decode_utf8().err().map(|_| "is not UTF-8")
}

/// Whether two hex digits follow each `%` of `text`.
pub(crate) fn has_valid_escapes(text: &str) -> bool {
    let is_escape = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    text.split('%').skip(1).all(is_escape)
}

/// Returns the error for a `message` of serde's.
pub(crate) fn refuse(message: &str) -> ApiError {
    let duplicate = message.rsplit_once("duplicate field `").and_then(|(_, rest)| rest.strip_suffix('`'));
    match duplicate.map(str::to_owned) {
        Some(name) => {
            let text = format!("query parameter {name} is given more than once");
            ApiError::invalid(name, "duplicate_parameter", text)
        }
        None => ApiError::bad_request("invalid_query", Cow::Owned(message.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Params {
        id: Option<String>,
        after: Option<String>,
    }

    fn params(id: Option<&str>, after: Option<&str>) -> Params {
        Params { id: id.map(str::to_owned), after: after.map(str::to_owned) }
    }

    async fn parse(query: &str) -> Result<Params, ApiError> {
        let request = Request::builder().uri(format!("/?{query}")).body(()).unwrap();
        QueryParams::from_request_parts(&mut request.into_parts().0, &()).await.map(|QueryParams(params)| params)
    }

    #[tokio::test]
    async fn parameters_are_decoded_and_unknown_ones_ignored() {
        for (query, expected) in [
            ("", params(None, None)),
            ("&&", params(None, None)),
            ("id=7", params(Some("7"), None)),
            ("id=", params(Some(""), None)),
            ("id", params(Some(""), None)),
            ("id=a%20b+c%C3%A9&after=x=y", params(Some("a b cé"), Some("x=y"))),
            ("%69d=7&colour=red&colour=blue", params(Some("7"), None)),
        ] {
            assert_eq!(parse(query).await.unwrap(), expected, "{query}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_named() {
        for (query, code, text, field) in [
            ("id=1&id=2", "duplicate_parameter", "query parameter id is given more than once", Some("id")),
            ("id=%zz", "invalid_query", "query parameter id holds a % that two hex digits do not follow", Some("id")),
            ("id=%4", "invalid_query", "query parameter id holds a % that two hex digits do not follow", Some("id")),
            ("id=%ff", "invalid_query", "query parameter id is not UTF-8", Some("id")),
            ("%ff=1", "invalid_query", "a query parameter's name is not UTF-8", None),
        ] {
            let error = parse(query).await.unwrap_err();
            assert_eq!((error.code, &*error.text, error.field.as_deref()), (code, text, field), "{query}");
        }
    }
}
