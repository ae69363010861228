//! Lists in pages: the `limit` of a request, and the response `{"<name>": […], "total", "next"}`.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::error::ApiError;

/// The smallest page.
pub const MIN_LIMIT: u32 = 1;
/// The page size without a `limit`.
pub const DEFAULT_LIMIT: u32 = 50;
/// The largest page, about 50 kB of JSON: no request costs far more than another.
pub const MAX_LIMIT: u32 = 200;

/// Returns the page size that the `limit` of a query asks for: [`DEFAULT_LIMIT`] without one, 400 unless it is a number in
/// range.
pub fn parse_limit(limit: Option<&str>) -> Result<u32, ApiError> {
    let Some(text) = limit else { return Ok(DEFAULT_LIMIT) };
    let digits_only = text.bytes().all(|byte| byte.is_ascii_digit()); // `parse` accepts a sign
    match text.parse() {
        Ok(limit) if digits_only && (MIN_LIMIT..=MAX_LIMIT).contains(&limit) => Ok(limit),
        _ => {
            let text = format!("limit must be a whole number from {MIN_LIMIT} to {MAX_LIMIT}");
            Err(ApiError::invalid("limit", "invalid_limit", text))
        }
    }
}

/// A page of a list, newest first.
#[derive(Debug)]
pub struct Page<T> {
    /// The items of the page.
    pub items: Vec<T>,
    /// The length of the whole list.
    pub total: u64,
    /// Whether older items follow.
    pub more: bool,
}

impl<T: Serialize> Page<T> {
    /// Makes a page of at most `limit` of `rows`. The caller reads one row more than `limit`, to learn whether more follow.
    pub fn new(mut rows: Vec<T>, limit: usize, total: u64) -> Self {
        let more = rows.len() > limit;
        rows.truncate(limit);
        Page { items: rows, total, more }
    }

    /// Returns the page as a response, with the items in the field `name`. `cursor` returns the cursor of an item, which a
    /// request's `after` repeats; rows are never removed, so a cursor stays valid.
    pub fn into_response<C: Serialize>(self, name: &'static str, cursor: impl Fn(&T) -> C) -> Response {
        let next = self.items.last().filter(|_| self.more).map(cursor);
        Json(List { name, page: &self, next }).into_response()
    }
}

struct List<'a, T, C> {
    name: &'static str,
    page: &'a Page<T>,
    next: Option<C>,
}

impl<T: Serialize, C: Serialize> Serialize for List<'_, T, C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry(self.name, &self.page.items)?;
        map.serialize_entry("total", &self.page.total)?;
        map.serialize_entry("next", &self.next)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_whole_number_in_range() {
        assert_eq!(parse_limit(None), Ok(50));
        for (text, limit) in [("1", 1), ("200", 200), ("007", 7)] {
            assert_eq!(parse_limit(Some(text)), Ok(limit));
        }
        for text in ["", "0", "201", "-1", "+5", "5.0", "ten", " 5", "99999999999999999999"] {
            let error = parse_limit(Some(text)).unwrap_err();
            assert_eq!((error.code, error.field.as_deref()), ("invalid_limit", Some("limit")));
            assert_eq!(error.text, "limit must be a whole number from 1 to 200");
        }
    }
}
