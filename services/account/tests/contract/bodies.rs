//! What is wrong with a body is said in words, the same for every path that takes one.

use test_harness::Answer;

use crate::service::{TestService, account};

/// The largest body (http_server::MAX_BODY_BYTES), in bytes.
const MAX_BODY_BYTES: usize = 64 * 1_024;

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Sends `body` to each path that takes one, and has `check` look at the answers. No account is made or changed by it.
fn refused_by_each(headers: &[(&str, &str)], body: &[u8], check: impl Fn(&Answer)) {
    let service = TestService::start();
    let created = service.create("John Doe", "US");
    for (method, path) in
        [("POST", "/account"), ("PUT", created.header("location")), ("PATCH", created.header("location"))]
    {
        check(&service.send(method, path, headers, body.to_vec()));
    }
    assert_eq!(service.list("")["total"], 1);
    assert_eq!(service.get(created.header("location")).raw, created.raw);
}

#[test]
fn what_is_no_json_is_shown_where_it_breaks() {
    let too_deep = "malformed JSON at line 1 column 128: recursion limit exceeded";
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for (body, text) in [
        ("", "the body is empty; a JSON object is expected"),
        (" \n ", "the body is empty; a JSON object is expected"),
        (r#"{"beholder_name": "John"#, "the JSON ends too early, at line 1 column 23"),
        (r#"{"beholder_name": "John Doe", "country_code": "US""#, "the JSON ends too early, at line 1 column 50"),
        ("{\n", "the JSON ends too early, at line 2 column 0"),
        ("hello", "malformed JSON at line 1 column 1: expected value"),
        ("beholder_name=John&country_code=US", "malformed JSON at line 1 column 1: expected value"),
        (r#"{"beholder_name": 'John'}"#, "malformed JSON at line 1 column 19: expected value"),
        (r#"{"country_code": "US",}"#, "malformed JSON at line 1 column 23: trailing comma"),
        (r#"{"country_code": "US"} {}"#, "malformed JSON at line 1 column 24: trailing characters"),
        (
            "{\"country_code\": \"U\nS\"}",
            "malformed JSON at line 2 column 0: control character (\\u0000-\\u001F) found while parsing a string",
        ),
        (&deep, too_deep),
        (&"[".repeat(10_000), too_deep),
    ] {
        refused_by_each(&[JSON], body.as_bytes(), |answer| answer.expect_error(400, "malformed_json", text, None));
    }
    let deep = format!("{{\"beholder_name\":{deep},\"country_code\":\"US\"}}");
    let too_deep = "malformed JSON at line 1 column 144: recursion limit exceeded";
    refused_by_each(&[JSON], deep.as_bytes(), |answer| answer.expect_error(400, "malformed_json", too_deep, None));
}

#[test]
fn what_is_not_utf_8_is_refused() {
    let body = b"{\"beholder_name\": \"J\xf6rg\", \"country_code\": \"DE\"}";
    let text = "the body is not UTF-8, at byte 21";
    refused_by_each(&[JSON], body, |answer| answer.expect_error(400, "invalid_encoding", text, None));
    let utf_16: Vec<u8> = "{\"beholder_name\":\"J\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    refused_by_each(&[JSON], &utf_16, |answer| {
        assert_eq!((answer.status, answer.text("code")), (400, "malformed_json"))
    });
}

#[test]
fn what_is_no_object_is_named() {
    for (body, kind) in [
        ("[]", "an array"),
        (r#"["John Doe", "US"]"#, "an array"),
        (r#"[{"beholder_name": "John Doe", "country_code": "US"}]"#, "an array"),
        ("null", "null"),
        ("true", "a boolean"),
        ("7", "a number"),
        (r#""John Doe""#, "a string"),
    ] {
        let text = format!("the body must be a JSON object, not {kind}");
        refused_by_each(&[JSON], body.as_bytes(), |answer| answer.expect_error(400, "invalid_body", &text, None));
    }
}

#[test]
fn a_field_of_the_wrong_type_is_named() {
    for value in ["5", "1.5", "true", "[]", r#"["US"]"#, "{}", r#"{"a": 1}"#, "1e400"] {
        for field in ["beholder_name", "country_code"] {
            let body = format!("{{\"{field}\": {value}}}");
            refused_by_each(&[JSON], body.as_bytes(), |answer| {
                if value == "1e400" {
                    assert_eq!((answer.status, answer.text("code")), (400, "malformed_json"), "{}", answer.raw);
                } else {
                    answer.expect_error(400, "invalid_field", &format!("{field} must be a string"), Some(field));
                }
            });
        }
    }
    let service = TestService::start();
    let id = service.new_id();
    let answer = service.patch(&id, &serde_json::json!({"status": 1}));
    answer.expect_error(400, "invalid_field", "status must be a string", Some("status"));
}

#[test]
fn a_field_that_is_unknown_is_ignored() {
    let service = TestService::start();
    let body = br#"{"beholder_name": "J", "account_type": {"a": [1]}, "country_code": "US", "account_type": null}"#;
    let created = service.send("POST", "/account", &[JSON], body.to_vec());
    assert_eq!((created.status, created.text("beholder_name")), (201, "J"), "{}", created.raw);
    for method in ["PUT", "PATCH"] {
        let answer = service.send(method, created.header("location"), &[JSON], body.to_vec());
        assert_eq!((answer.status, answer.raw), (200, created.raw.clone()), "{method}");
    }
}

#[test]
fn a_field_that_is_given_twice_is_named() {
    refused_by_each(&[JSON], br#"{"beholder_name": "J", "country_code": "US", "country_code": "DE"}"#, |answer| {
        answer.expect_error(400, "duplicate_field", "country_code is given more than once", Some("country_code"));
    });
}

#[test]
fn a_body_may_have_64_kib_and_no_byte_more() {
    let service = TestService::start();
    let body = r#"{"beholder_name":"John Doe","country_code":"US"}"#;
    let padded = |length: usize| format!("{body}{}", " ".repeat(length - body.len())).into_bytes();
    let answer = service.send("POST", "/account", &[JSON], padded(MAX_BODY_BYTES));
    assert_eq!(answer.status, 201, "{}", answer.raw);
    let path = answer.header("location");
    for method in ["PUT", "PATCH"] {
        assert_eq!(service.send(method, path, &[JSON], padded(MAX_BODY_BYTES)).status, 200);
    }
    for length in [MAX_BODY_BYTES + 1, 1024 * 1024] {
        refused_by_each(&[JSON], &padded(length), |answer| {
            answer.expect_error(413, "body_too_large", "the body must be at most 65536 bytes", None);
        });
    }
}

#[test]
fn a_body_that_does_not_call_itself_json_is_refused() {
    let body = br#"{"beholder_name":"Jane Doe","country_code":"US"}"#;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/xml", "multipart/form-data", "json"] {
        let text = format!("the body must be application/json, not {kind}");
        refused_by_each(&[("Content-Type", kind)], body, |answer| {
            answer.expect_error(415, "unsupported_media_type", &text, Some("Content-Type"));
        });
    }
    refused_by_each(&[JSON, ("Content-Encoding", "gzip")], body, |answer| {
        let text = "the body must not be compressed: Content-Encoding is not supported";
        answer.expect_error(415, "unsupported_media_type", text, Some("Content-Encoding"));
    });
}

#[test]
fn a_browsers_body_calls_itself_json() {
    let body = br#"{"beholder_name":"Jane Doe","country_code":"US"}"#;
    let text = "the body must be application/json; the Content-Type is missing";
    refused_by_each(&[("Sec-Fetch-Site", "same-origin")], body, |answer| {
        answer.expect_error(415, "unsupported_media_type", text, Some("Content-Type"));
    });
}

#[test]
fn a_body_that_does_call_itself_json_or_says_nothing_is_read() {
    let service = TestService::start();
    let body = br#" {"country_code": "US", "beholder_name": "J\u00f6rg \ud83e\udd80"} "#;
    for headers in [&[][..], &[JSON], &[("Content-Type", "application/json; charset=utf-8")]] {
        let answer = service.send("POST", "/account", headers, body.to_vec());
        assert_eq!((answer.status, answer.text("beholder_name")), (201, "Jörg 🦀"));
    }
    let id = service.new_id();
    let merge_patch = [("Content-Type", "application/merge-patch+json")];
    service.send("PATCH", &account(&id), &merge_patch, br#"{"status":"BLOCKED"}"#.to_vec()).expect(200);
}
