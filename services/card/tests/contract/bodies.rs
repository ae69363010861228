//! The errors for the body of `POST /card`.

use serde_json::json;
use test_harness::Answer;

use crate::service::TestService;

/// The largest body (http_server::MAX_BODY_BYTES), in bytes.
const MAX_BODY_BYTES: usize = 64 * 1_024;

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn post(service: &TestService, body: &[u8]) -> Answer {
    service.send("POST", "/card", &[JSON], body.to_vec())
}

#[test]
fn what_is_no_json_object_is_shown_where_it_breaks() {
    let service = TestService::start();
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_field = format!("{{\"country\":{deep}}}");
    for (body, code, text) in [
        ("", "malformed_json", "the body is empty; a JSON object is expected"),
        (r#"{"country": "US", "acc"#, "malformed_json", "the JSON ends too early, at line 1 column 22"),
        ("country=US", "malformed_json", "malformed JSON at line 1 column 1: expected value"),
        (r#"{"country": "US"} {}"#, "malformed_json", "malformed JSON at line 1 column 19: trailing characters"),
        (&deep, "malformed_json", "malformed JSON at line 1 column 128: recursion limit exceeded"),
        (&deep_field, "malformed_json", "malformed JSON at line 1 column 138: recursion limit exceeded"),
        (
            r#"["US", "550e8400-e29b-41d4-a716-446655440000"]"#,
            "invalid_body",
            "the body must be a JSON object, not an array",
        ),
        ("null", "invalid_body", "the body must be a JSON object, not null"),
    ] {
        post(&service, body.as_bytes()).expect_error(400, code, text, None);
    }
    let answer = post(&service, b"{\"country\": \"\xff\"}");
    answer.expect_error(400, "invalid_encoding", "the body is not UTF-8, at byte 14", None);
    assert_eq!(service.get("/cards").body["total"], 0);
}

#[test]
fn a_field_of_the_wrong_type_is_named() {
    let service = TestService::start();
    for value in [json!(5), json!(true), json!([]), json!(["US"]), json!({})] {
        for field in ["country", "account_id"] {
            let answer = service.post("/card", &json!({field: value}));
            answer.expect_error(400, "invalid_field", &format!("{field} must be a string"), Some(field));
        }
    }
}

#[test]
fn a_field_that_is_unknown_is_ignored() {
    let service = TestService::start();
    // The web page of the seed sends the type of the card.
    let body = json!({"country": "US", "account_id": service.account(), "card_type": "VISA"});
    assert_eq!(service.post("/card", &body).expect(201)["country"], "US");
}

#[test]
fn a_field_that_is_given_twice_is_named() {
    let service = TestService::start();
    let text = "country is given more than once";
    post(&service, br#"{"country": "US", "country": "US"}"#).expect_error(
        400,
        "duplicate_field",
        text,
        Some("country"),
    );
}

#[test]
fn a_body_may_have_64_kib_and_no_byte_more() {
    let service = TestService::start();
    let body = json!({"country": "US", "account_id": service.account()}).to_string();
    let padded = |length: usize| format!("{body}{}", " ".repeat(length - body.len())).into_bytes();
    assert_eq!(post(&service, &padded(MAX_BODY_BYTES)).status, 201);
    for length in [MAX_BODY_BYTES + 1, 1024 * 1024] {
        let answer = post(&service, &padded(length));
        answer.expect_error(413, "body_too_large", "the body must be at most 65536 bytes", None);
    }
    assert_eq!(service.get("/cards").body["total"], 1);
}

#[test]
fn a_body_that_does_not_call_itself_json_is_refused() {
    let service = TestService::start();
    let body = json!({"country": "US", "account_id": service.account()}).to_string();
    let browser = [("Sec-Fetch-Site", "same-origin")];
    let text = "the body must be application/json; the Content-Type is missing";
    let answer = service.send("POST", "/card", &browser, body.clone().into());
    answer.expect_error(415, "unsupported_media_type", text, Some("Content-Type"));
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        let answer = service.send("POST", "/card", &[("Content-Type", kind)], body.clone().into());
        let text = format!("the body must be application/json, not {kind}");
        answer.expect_error(415, "unsupported_media_type", &text, Some("Content-Type"));
    }
    service.send("POST", "/card", &[("Content-Type", "application/json; charset=utf-8")], body.into()).expect(201);
}
