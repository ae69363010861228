//! Bodies and queries, valid and invalid, over real connections.

mod harness;

use axum::routing::{get, post};
use axum::{Json, Router};
use harness::{Server, start};
use http_server::{ApiError, JsonBody, MAX_BODY_BYTES, QueryParams, parse_limit};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
struct Form {
    beholder_name: Option<String>,
    size: Option<u32>,
}

#[derive(Deserialize)]
struct Page {
    limit: Option<String>,
}

async fn server() -> Server {
    let echo = async |JsonBody(form): JsonBody<Form>| Json(form);
    let page =
        async |QueryParams(page): QueryParams<Page>| Ok::<_, ApiError>(Json(parse_limit(page.limit.as_deref())?));
    start(Router::new().route("/", post(echo)).route("/page", get(page))).await
}

const POST: &str = "POST / HTTP/1.1";

#[tokio::test]
async fn a_json_object_is_read() {
    let server = server().await;
    for kind in ["application/json", "application/json; charset=utf-8", "application/x+json"] {
        let answer = server.ask(&format!("{POST}\r\ncontent-type: {kind}"), r#"{"beholder_name":"Zoë"}"#).await;
        assert_eq!(answer.json()["beholder_name"], "Zoë", "{kind}");
    }
    assert_eq!(server.ask(POST, " {} ").await.status, 200);
    let answer = server.ask(POST, r#"{"card_type": {"a": [1]}, "size": 1, "card_type": 2}"#).await;
    assert_eq!((answer.status, &answer.json()["size"]), (200, &1.into()), "unknown fields are ignored");
}

#[tokio::test]
async fn wrong_bodies_are_named() {
    let server = server().await;
    let json = &format!("{POST}\r\ncontent-type: application/json");
    for (body, code, text) in [
        ("", "malformed_json", "the body is empty; a JSON object is expected"),
        ("{\"beholder_name\"", "malformed_json", "the JSON ends too early, at line 1 column 16"),
        ("{} {}", "malformed_json", "malformed JSON at line 1 column 4: trailing characters"),
        ("[\"a\", 1]", "invalid_body", "the body must be a JSON object, not an array"),
        ("{\"beholder_name\": 5}", "invalid_field", "beholder_name must be a string"),
        ("{\"size\":1,\"size\":1}", "duplicate_field", "size is given more than once"),
    ] {
        server.ask(json, body).await.is_error(400, code).has_text(text);
    }
    server.ask(json, b"{\"beholder_name\": \"\xff\"}").await.is_error(400, "invalid_encoding");
    assert_eq!(server.ask(json, "{\"size\": \"\"}").await.json()["field"], "size");
    for header in
        ["content-type: text/plain", "content-type: application/x-www-form-urlencoded", "content-encoding: gzip"]
    {
        server.ask(&format!("{POST}\r\n{header}"), "{}").await.is_error(415, "unsupported_media_type");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_however_it_comes() {
    let server = server().await;
    let fits = format!("{{}}{}", " ".repeat(MAX_BODY_BYTES - 2));
    assert_eq!(server.ask(POST, &fits).await.status, 200);
    for size in [MAX_BODY_BYTES + 1, 2 * 1024 * 1024] {
        let answer = server.ask(POST, vec![b' '; size]).await;
        answer.is_error(413, "body_too_large").has_text("the body must be at most 65536 bytes");
    }

    let mut client = server.connect().await;
    client.send(format!("{POST}\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")).await;
    for _ in 0..9 {
        client.send(format!("2000\r\n{}\r\n", " ".repeat(0x2000))).await;
    }
    client.send("0\r\n\r\n").await;
    client.answer().await.unwrap().is_error(413, "body_too_large");

    // Announced and not sent: the client waits for `100 Continue`.
    let mut client = server.connect().await;
    client.send(format!("{POST}\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 70000\r\n\r\n")).await;
    client.answer().await.unwrap().is_error(413, "body_too_large");
}

#[tokio::test]
async fn a_connection_that_closes_under_a_body_says_so() {
    let server = server().await;
    for (head, body, status, code) in [
        ("POST /", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n", 400, "incomplete_body"),
        ("POST /nowhere", "transfer-encoding: chunked\r\n\r\nnonsense\r\n", 404, "not_found"),
        ("POST /", "content-length: 5000000\r\n\r\n{", 413, "body_too_large"),
        ("POST /nowhere", "content-length: 5000000\r\n\r\n{", 404, "not_found"),
        ("POST /", "expect: 100-continue\r\ncontent-length: 70000\r\n\r\n", 413, "body_too_large"),
        ("POST /nowhere", "expect: 100-continue\r\ncontent-length: 10\r\n\r\n", 404, "not_found"),
    ] {
        let mut client = server.connect().await;
        client.send(format!("{head} HTTP/1.1\r\nhost: localhost\r\n{body}")).await;
        let answer = client.answer().await.unwrap();
        answer.is_error(status, code);
        assert_eq!(answer.header("connection"), Some("close"), "{head} {body}");
        assert!(client.answer().await.is_none(), "{head} {body}");
    }
    // A connection that stays open has no `Connection` header.
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.send(format!("{POST}\r\nhost: localhost\r\ncontent-length: 70000\r\n\r\n{}", " ".repeat(70_000))).await;
        let answer = client.answer().await.unwrap();
        answer.is_error(413, "body_too_large");
        assert_eq!(answer.header("connection"), None);
    }
}

#[tokio::test]
async fn an_answer_gets_through_while_a_far_too_large_body_is_sent() {
    let server = server().await;
    let mut client = server.connect().await;
    let body = vec![b' '; 5_000_000];
    client.send(format!("{POST}\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len())).await;
    client.send(&body).await;
    client.answer().await.unwrap().is_error(413, "body_too_large");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_is_408_and_the_connection_closes() {
    let server = server().await;
    let mut client = server.connect().await;
    client.send(format!("{POST}\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{{")).await;
    let answer = client.answer().await.unwrap();
    answer.is_error(408, "request_timeout");
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(client.answer().await.is_none());
}

#[tokio::test]
async fn a_body_that_breaks_off_is_told_so() {
    let server = server().await;
    let mut client = server.connect().await;
    client.send(format!("{POST}\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{{")).await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.0).await.unwrap();
    let answer = client.answer().await.unwrap();
    answer.is_error(400, "incomplete_body");
    assert_eq!(answer.header("connection"), Some("close"));
}

#[tokio::test]
async fn a_body_that_nobody_reads_costs_neither_the_answer_nor_the_connection() {
    let server = server().await;
    let mut client = server.connect().await;
    let chunked = "transfer-encoding: chunked";
    for (request, length, body, status) in [
        ("POST /nowhere", "content-length: 10", "0123456789", 404),
        ("DELETE /", "content-length: 10", "0123456789", 405),
        ("GET /page?limit=0", "content-length: 10", "0123456789", 400),
        ("GET /page", chunked, "5\r\n01234\r\n0\r\n\r\n", 200),
        ("POST /nowhere", "content-length: 200000", &"x".repeat(200_000), 404),
        ("GET /page", "content-length: 0", "", 200),
    ] {
        client.send(format!("{request} HTTP/1.1\r\nhost: localhost\r\n{length}\r\n\r\n")).await;
        // The body arrives after the head, in pieces.
        for piece in body.as_bytes().chunks(body.len().div_ceil(3).max(1)) {
            tokio::task::yield_now().await;
            client.send(piece).await;
        }
        assert_eq!(client.answer().await.map(|answer| answer.status), Some(status), "{request}");
    }
}

#[tokio::test]
async fn queries_are_read_strictly() {
    let server = server().await;
    assert_eq!(server.get("/page").await.json(), 50);
    assert_eq!(server.get("/page?limit=%37&other=1").await.json(), 7);
    for (path, code) in [
        ("/page?limit=0", "invalid_limit"),
        ("/page?limit=1&limit=2", "duplicate_parameter"),
        ("/page?limit=%zz", "invalid_query"),
        ("/page?limit=%ff", "invalid_query"),
    ] {
        assert_eq!(server.get(path).await.is_error(400, code).json()["field"], "limit");
    }
}

#[tokio::test]
async fn a_head_that_cannot_be_parsed_is_refused_in_json() {
    let server = server().await;
    let long = "x".repeat(40_000);
    for (request, status, code) in [
        ("hello\r\n\r\n".to_owned(), 400, "bad_request"),
        ("GET / HTTP/1.1\r\nbad header: x\r\n\r\n".to_owned(), 400, "bad_request"),
        (format!("GET / HTTP/1.1\r\nx: {long}\r\n\r\n"), 431, "headers_too_large"),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(101)), 431, "headers_too_large"),
    ] {
        let mut client = server.connect().await;
        client.send(request).await;
        let answer = client.answer().await.unwrap();
        answer.is_error(status, code);
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(client.answer().await.is_none(), "the connection is closed");
    }
    // After valid requests, too.
    let mut client = server.connect().await;
    client.send("GET /page HTTP/1.1\r\nhost: localhost\r\n\r\nhello\r\n\r\n").await;
    assert_eq!(client.answer().await.unwrap().status, 200);
    client.answer().await.unwrap().is_error(400, "bad_request");
}
