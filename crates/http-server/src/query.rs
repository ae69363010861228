//! Query parameters as a typed struct whose fields are `Option<String>`.
//!
//! Stricter than the usual form decoding, which takes bad escapes as they stand and replaces what is not UTF-8: an id
//! that was mangled on its way must be refused, not looked up. Parameters the struct does not name are ignored.

use std::borrow::Cow;
use std::vec;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::value::{Error as ValueError, MapDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use crate::body::shorten;
use crate::error::ApiError;

/// Extracts the query string into `T`, or answers 400.
///
/// `T`'s fields are to be `Option<String>`: whether a parameter is required, and what it may hold, is the handler's to
/// say, in its own words.
#[derive(Debug, Clone, Copy)]
pub struct QueryParams<T>(
    /// The parameters.
    pub T,
);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        parse(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// Reads `query`, the part of an address after `?`.
fn parse<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name)
            .map_err(|problem| ApiError::bad_request("invalid_query", format!("a query parameter's name {problem}")))?;
        let value = decode(value).map_err(|problem| {
            let name = shorten(&name).into_owned();
            ApiError::bad_request("invalid_query", format!("query parameter {name} {problem}")).with_field(name)
        })?;
        pairs.push((name, Text(value)));
    }
    let map: MapDeserializer<'_, vec::IntoIter<_>, ValueError> = MapDeserializer::new(pairs.into_iter());
    T::deserialize(map).map_err(|error| refuse(&error.to_string()))
}

/// What is wrong with the parameters, from what serde says of them.
fn refuse(message: &str) -> ApiError {
    match message.strip_prefix("duplicate field `").and_then(|rest| rest.strip_suffix('`')) {
        Some(name) => ApiError::invalid(
            name.to_owned(),
            "duplicate_parameter",
            format!("query parameter {name} is given more than once"),
        ),
        None => ApiError::bad_request("invalid_query", message.to_owned()),
    }
}

/// Decodes `%XX` and `+`; what it says on failure follows the parameter's name.
fn decode(text: &str) -> Result<Cow<'_, str>, &'static str> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => match (bytes.next().and_then(hex_digit), bytes.next().and_then(hex_digit)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err("holds a % that two hex digits do not follow"),
            },
            byte => byte,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| "is not UTF-8")
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// A parameter's value: what is given is `Some`, and everything is a text.
struct Text<'a>(Cow<'a, str>);

impl IntoDeserializer<'_> for Text<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Text<'_> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_string(self.0.into_owned())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Params {
        id: Option<String>,
        after: Option<String>,
    }

    fn params(id: Option<&str>, after: Option<&str>) -> Params {
        Params { id: id.map(str::to_owned), after: after.map(str::to_owned) }
    }

    #[test]
    fn parameters_are_decoded_and_unknown_ones_ignored() {
        for (query, expected) in [
            ("", params(None, None)),
            ("&&", params(None, None)),
            ("id=7", params(Some("7"), None)),
            ("id=", params(Some(""), None)),
            ("id", params(Some(""), None)),
            ("id=a%20b+c%C3%A9&after=x=y", params(Some("a b cé"), Some("x=y"))),
            ("%69d=7&colour=red&colour=blue", params(Some("7"), None)),
        ] {
            assert_eq!(parse::<Params>(query).unwrap(), expected, "{query}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (query, code, text, field) in [
            ("id=1&id=2", "duplicate_parameter", "query parameter id is given more than once", Some("id")),
            ("id=%zz", "invalid_query", "query parameter id holds a % that two hex digits do not follow", Some("id")),
            ("id=%4", "invalid_query", "query parameter id holds a % that two hex digits do not follow", Some("id")),
            ("id=%ff", "invalid_query", "query parameter id is not UTF-8", Some("id")),
            ("%ff=1", "invalid_query", "a query parameter's name is not UTF-8", None),
        ] {
            let error = parse::<Params>(query).unwrap_err();
            assert_eq!((error.code, &*error.text, error.field.as_deref()), (code, text, field), "{query}");
        }
    }
}
