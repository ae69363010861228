//! A server meets bytes that are nearly requests.

mod harness;

use axum::routing::{get, post};
use axum::{Json, Router};
use http_server::{
    ACCOUNT_VERSION, ApiError, Idempotency, JsonBody, QueryParams, if_match, if_none_match, parse_limit, prefer_wait,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde::{Deserialize, Serialize};
use test_harness::mangled;
use tokio::io::AsyncReadExt as _;

use crate::harness::{Server, start};

#[derive(Debug, Serialize, Deserialize)]
struct Thing {
    name: Option<String>,
    size: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct Query {
    limit: Option<String>,
}

async fn server() -> Server {
    let change = async |idempotency: Idempotency, JsonBody(thing): JsonBody<Thing>| {
        let name = thing.name.clone();
        let _ = idempotency.of_fields(&[name.as_deref()]);
        Json(thing)
    };
    let list = async |QueryParams(query): QueryParams<Query>, headers: axum::http::HeaderMap| {
        let _ = (if_match(&headers), if_none_match(&headers), prefer_wait(&headers), headers.get(ACCOUNT_VERSION));
        parse_limit(query.limit.as_deref()).map(|limit| limit.to_string())
    };
    let list = async move |query, headers| -> Result<String, ApiError> { list(query, headers).await };
    start(Router::new().route("/thing", post(change)).route("/things", get(list))).await
}

fn requests() -> Vec<Vec<u8>> {
    let body = r#"{"name":"a\u00e9","size":3,"other":[{}]}"#;
    let post = format!(
        "POST /thing HTTP/1.1\r\nHost: localhost:80\r\nContent-Type: application/json; charset=utf-8\r\nOrigin: http://localhost:80\r\n\
         Idempotency-Key: \"k-1\"\r\nX-Request-Id: 7\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let chunked = "POST /thing HTTP/1.1\r\nhost: [::1]\r\ntransfer-encoding: chunked\r\n\r\n9\r\n{\"size\":1\r\n1\r\n}\r\n0\r\n\r\n";
    let get = "GET /things?limit=50&after=%41 HTTP/1.1\r\nHost: 127.0.0.1\r\nIf-None-Match: W/\"1\", \"2\"\r\nIf-Match: *\r\n\
               Prefer: wait=5; x=\"a,b\", respond-async\r\nAccount-Version: \"3\"\r\nRange: bytes=0-1\r\n\r\n";
    [post.as_str(), chunked, get, "OPTIONS * HTTP/1.0\r\n\r\n"].map(|request| request.as_bytes().to_vec()).into()
}

/// What the server sends until it closes the connection.
async fn answers(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut client = server.connect().await;
    client.send(bytes).await;
    client.finish().await;
    let mut answers = Vec::new();
    // A connection that is reset has had its answers.
    let _ = client.0.read_to_end(&mut answers).await;
    answers
}

#[test]
fn fuzz_nearly_a_request_is_answered_in_the_standard_form_and_the_server_goes_on() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(server());
    let case = |bytes: Vec<u8>| {
        let answers = runtime.block_on(answers(&server, &bytes));
        let text = String::from_utf8_lossy(&answers);
        prop_assert!(text.is_empty() || text.starts_with("HTTP/1."), "{}", text);
        prop_assert!(!text.contains(" 500 "), "{}", text);
        if text.starts_with("HTTP/1.1 4") {
            prop_assert!(text.contains("content-type: application/json"), "{}", text);
        }
        prop_assert_eq!(runtime.block_on(server.get("/things")).status, 200);
        Ok(())
    };
    let mut runner = TestRunner::default();
    runner.run(&mangled(requests()), case).unwrap();
}
