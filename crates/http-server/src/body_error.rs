//! The error for a JSON body that does not parse, in terms of the body's sender.
//!
//! The checks run in this order: the encoding, the syntax, the kind of value, the fields. So a truncated body is reported
//! before a wrong field in it.

use std::str;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::error::Category;

use crate::error::ApiError;

/// Returns the error for `bytes`, which do not parse as a `T`.
pub(crate) fn explain<T: DeserializeOwned>(bytes: &[u8]) -> ApiError {
    if let Err(error) = str::from_utf8(bytes) {
        let text = format!("the body is not UTF-8, at byte {}", error.valid_up_to() + 1);
        return ApiError::bad_request("invalid_encoding", text);
    }
    if bytes.trim_ascii().is_empty() {
        return ApiError::bad_request("malformed_json", "the body is empty; a JSON object is expected");
    }
    let kind = match serde_json::from_slice(bytes) {
        Ok(Value::Object(_)) => return explain_field::<T>(bytes),
        Ok(Value::Array(_)) => "an array",
        Ok(Value::String(_)) => "a string",
        Ok(Value::Number(_)) => "a number",
        Ok(Value::Bool(_)) => "a boolean",
        Ok(Value::Null) => "null",
        Err(error) => {
            let place = format!("at line {} column {}", error.line(), error.column());
            let text = match error.classify() {
                Category::Eof => format!("the JSON ends too early, {place}"),
                _ => format!("malformed JSON {place}: {}", without_place(&error.to_string())),
            };
            return ApiError::bad_request("malformed_json", text);
        }
    };
    ApiError::bad_request("invalid_body", format!("the body must be a JSON object, not {kind}"))
}

/// Names the field at fault in an object.
fn explain_field<T: DeserializeOwned>(bytes: &[u8]) -> ApiError {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let Err(error) = serde_path_to_error::deserialize::<_, T>(&mut json) else {
        return ApiError::bad_request("invalid_body", "the body cannot be read");
    };
    let path = error.path().to_string();
    let message = error.inner().to_string();
    let message = without_place(&message);
    let (code, field, text) = if let Some(name) = quoted_name(message, "duplicate field `") {
        ("duplicate_field", name.to_owned(), format!("{name} is given more than once"))
    } else if let Some(name) = quoted_name(message, "missing field `") {
        ("missing_field", name.to_owned(), format!("{name} is required"))
    } else {
        let text = match message.rsplit_once(", expected ") {
            Some((_, "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64")) => {
                format!("{path} must be an integer")
            }
            Some((_, expected)) => format!("{path} must be {}", expected.replace('`', "")),
            None => format!("{path}: {message}"),
        };
        ("invalid_field", path, text)
    };
    ApiError::invalid(field, code, text)
}

/// Returns `message` without serde_json's ` at line 1 column 2`.
fn without_place(message: &str) -> &str {
    message.rfind(" at line ").map_or(message, |end| &message[..end])
}

/// Returns the name in backticks at the end of `message`, after `prefix`.
fn quoted_name<'a>(message: &'a str, prefix: &str) -> Option<&'a str> {
    message.strip_prefix(prefix)?.strip_suffix('`')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only read into")]
    struct Form {
        name: Option<String>,
        size: Option<u32>,
        state: Option<State>,
        code: Option<Code>,
    }

    #[derive(Debug, serde::Deserialize)]
    enum State {
        On,
        Off,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(try_from = "String")]
    struct Code;

    impl TryFrom<String> for Code {
        type Error = &'static str;

        fn try_from(_: String) -> Result<Self, &'static str> {
            Err("no code will do")
        }
    }

    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only read into")]
    struct Single {
        name: String,
    }

    fn check<T: DeserializeOwned>(body: &[u8], code: &str, text: &str, field: Option<&str>) {
        let error = explain::<T>(body);
        assert_eq!((&*error.text, error.code, error.field.as_deref()), (text, code, field));
        assert_eq!(error.status, 400);
    }

    #[test]
    fn each_mistake_is_named() {
        let deep = format!("{{\"name\": {}{}}}", "[".repeat(200), "]".repeat(200));
        for (body, code, text, field) in [
            (&b""[..], "malformed_json", "the body is empty; a JSON object is expected", None),
            (b" \n", "malformed_json", "the body is empty; a JSON object is expected", None),
            (b"{\"name\": \"a", "malformed_json", "the JSON ends too early, at line 1 column 11", None),
            (b"{\"name\": 5,\n", "malformed_json", "the JSON ends too early, at line 2 column 0", None),
            (b"{\"name\" 5}", "malformed_json", "malformed JSON at line 1 column 9: expected `:`", None),
            (b"{} x", "malformed_json", "malformed JSON at line 1 column 4: trailing characters", None),
            (b"hello", "malformed_json", "malformed JSON at line 1 column 1: expected value", None),
            (deep.as_bytes(), "malformed_json", "malformed JSON at line 1 column 136: recursion limit exceeded", None),
            (b"{\"name\": \"\xff\"}", "invalid_encoding", "the body is not UTF-8, at byte 11", None),
            (b"[\"a\"]", "invalid_body", "the body must be a JSON object, not an array", None),
            (b"null", "invalid_body", "the body must be a JSON object, not null", None),
            (b"{\"name\": 5}", "invalid_field", "name must be a string", Some("name")),
            (b"{\"name\": [1]}", "invalid_field", "name must be a string", Some("name")),
            (b"{\"size\": -1}", "invalid_field", "size must be an integer", Some("size")),
            (b"{\"size\": \"a, expected b\"}", "invalid_field", "size must be an integer", Some("size")),
            (b"{\"state\": \"x\"}", "invalid_field", "state must be On or Off", Some("state")),
            (b"{\"code\": \"x\"}", "invalid_field", "code: no code will do", Some("code")),
            (b"{\"name\":\"a\",\"name\":\"b\"}", "duplicate_field", "name is given more than once", Some("name")),
        ] {
            check::<Form>(body, code, text, field);
        }
        check::<Single>(b"{}", "missing_field", "name is required", Some("name"));
        check::<Single>(b"{\"x`y\":1}", "missing_field", "name is required", Some("name"));
    }
}
