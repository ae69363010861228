//! The `limit` of a list. `after` is the service's business: only it knows what its cursor means.

use crate::error::ApiError;

/// The smallest page.
pub const MIN_LIMIT: u32 = 1;
/// The page a caller gets who does not ask.
pub const DEFAULT_LIMIT: u32 = 50;
/// The largest page: some 50 kB of JSON, so that no request costs far more than another.
pub const MAX_LIMIT: u32 = 200;

/// The page size a query's `limit` asks for: [`DEFAULT_LIMIT`] without one, 400 unless it is a number in range.
pub fn parse_limit(limit: Option<&str>) -> Result<u32, ApiError> {
    let Some(text) = limit else { return Ok(DEFAULT_LIMIT) };
    let digits_only = text.bytes().all(|byte| byte.is_ascii_digit()); // `parse` would take a sign
    match text.parse() {
        Ok(limit) if digits_only && (MIN_LIMIT..=MAX_LIMIT).contains(&limit) => Ok(limit),
        _ => Err(ApiError::invalid(
            "limit",
            "invalid_limit",
            format!("limit must be a whole number from {MIN_LIMIT} to {MAX_LIMIT}"),
        )),
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
