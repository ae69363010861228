//! Responses: ids, errors, CORS, health.

mod harness;

use std::sync::Arc;

use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use harness::{start, start_with};
use http_server::{Api, ApiError, Endpoints, HttpConfig, Readiness, ReadyReport, Routes, etag, health_endpoints};
use serde_json::{Value, json};

fn router() -> Router {
    Router::new()
        .route("/thing", get(async || Json(json!({"ok": true}))).delete(async || "gone"))
        .route("/panic", get(async || -> StatusCode { panic!("boom {}", 1) }))
        .route("/bare", get(async || (StatusCode::BAD_GATEWAY, "<html>driver: secret</html>")))
        .route("/busy", post(async || ApiError::unavailable("busy", "try later", 3)))
}

#[tokio::test]
async fn a_request_id_is_kept_or_made() {
    let server = start(router()).await;
    let answer = server.ask("GET /thing HTTP/1.1\r\nX-Request-Id: mine-1", "").await;
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));

    let answer = server.ask("GET /thing HTTP/1.1\r\nX-Request-Id: not valid", "").await;
    let id = answer.header("x-request-id").unwrap();
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 4);
    assert_ne!(server.get("/thing").await.header("x-request-id"), Some(id));
}

#[tokio::test]
async fn errors_that_no_handler_made_are_json_too() {
    let server = start(router()).await;
    server.get("/nowhere").await.is_error(404, "not_found").has_text("no such path");
    server.get("/thing/").await.is_error(404, "not_found");
    let answer = server.ask("POST /thing HTTP/1.1", "{}").await;
    answer.is_error(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), Some("GET,HEAD,DELETE"));
    let answer = server.ask("OPTIONS /thing HTTP/1.1\r\norigin: http://a", "").await;
    answer.is_error(405, "method_not_allowed");
    assert_eq!(answer.header("access-control-allow-origin"), None);
    let answer = server.get("/bare").await;
    answer.is_error(502, "internal_error");
    assert!(!String::from_utf8(answer.body).unwrap().contains("secret"));
    let answer = server.ask("POST /busy HTTP/1.1", "").await;
    answer.is_error(503, "busy").has_text("try later");
    assert_eq!(answer.header("retry-after"), Some("3"));
}

#[tokio::test]
async fn a_head_request_is_answered_without_a_body() {
    let server = start(router()).await;
    let mut client = server.connect().await;
    // The client would parse an unexpected body as the head of the second response.
    client
        .send("HEAD /thing HTTP/1.1\r\nhost: localhost\r\n\r\nHEAD /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;
    for status in [200, 404] {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tokio::io::AsyncReadExt::read_u8(&mut client.0).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")) && head.contains("application/json"), "{head}");
    }
}

#[tokio::test]
async fn a_panic_answers_500_and_the_server_goes_on() {
    let server = start(router()).await;
    let answer = server.get("/panic").await;
    answer.is_error(500, "internal_error");
    assert!(!String::from_utf8(answer.body).unwrap().contains("boom"));
    assert_eq!(server.get("/thing").await.status, 200);
}

#[tokio::test]
async fn cors_answers_the_origins_it_is_given() {
    let cors = |origins: &str| HttpConfig { cors: Some(origins.parse().unwrap()), ..Default::default() };
    let server = start_with(router(), cors("http://a.example,http://b.example")).await;
    let preflight = "OPTIONS /thing HTTP/1.1\r\naccess-control-request-method: PATCH\r\naccess-control-request-headers: if-match\r\norigin:";
    let answer = server.ask(&format!("{preflight} http://b.example"), "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://b.example"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET,POST,PUT,PATCH,DELETE"));
    assert_eq!(
        answer.header("access-control-allow-headers"),
        Some(
            "authorization,if-match,if-none-match,content-type,x-request-id,traceparent,account-version,prefer,idempotency-key"
        )
    );
    let answer = server.ask(&format!("{preflight} http://c.example"), "").await;
    assert_eq!(answer.header("access-control-allow-origin"), None);

    let answer = server.ask("GET /nowhere HTTP/1.1\r\norigin: http://a.example", "").await;
    answer.is_error(404, "not_found");
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://a.example"));
    assert_eq!(
        answer.header("access-control-expose-headers"),
        Some(
            "etag,location,x-request-id,retry-after,account-version,preference-applied,idempotent-replayed,www-authenticate,\
             ratelimit-limit,ratelimit-remaining,ratelimit-reset"
        )
    );

    let server = start_with(router(), cors("*")).await;
    let answer = server.ask("GET /thing HTTP/1.1\r\norigin: http://c.example", "").await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn what_the_caller_has_already_is_not_sent_again() {
    let versioned = async || ([("etag", etag(3))], Json(json!({"version": 3})));
    let plain = async || Json(json!({}));
    let router = Router::new().route("/versioned", get(versioned).post(versioned)).route("/plain", get(plain));
    let server = start(router).await;
    for (request, status) in [
        ("GET /versioned HTTP/1.1\r\nif-none-match: \"3\"", 304),
        ("GET /versioned HTTP/1.1\r\nif-none-match: W/\"3\"", 304),
        ("GET /versioned HTTP/1.1\r\nif-none-match: \"1\", W/\"3\"", 304),
        ("GET /versioned HTTP/1.1\r\nif-none-match: \"1\"\r\nif-none-match: \"3\"", 304),
        ("GET /versioned HTTP/1.1\r\nif-none-match: *", 304),
        ("HEAD /versioned HTTP/1.1\r\nif-none-match: \"3\"", 304),
        ("GET /versioned HTTP/1.1\r\nif-none-match: \"4\"", 200),
        ("GET /versioned HTTP/1.1\r\nif-none-match: 3x", 200),
        ("POST /versioned HTTP/1.1\r\nif-none-match: \"3\"", 200),
        ("GET /plain HTTP/1.1\r\nif-none-match: \"3\"", 200),
        ("GET /nowhere HTTP/1.1\r\nif-none-match: *", 404),
    ] {
        let answer = server.ask(request, "").await;
        assert_eq!(answer.status, status, "{request}");
        assert!(answer.header("x-request-id").is_some());
        if status == 304 {
            assert_eq!((answer.header("etag"), answer.header("content-type")), (Some("\"3\""), None), "{request}");
            assert!(answer.body.is_empty());
        }
    }
}

const API: Api = Api {
    service: "account-service",
    version: "1.2.3",
    title: "A service",
    description: "What it does.",
    errors: Vec::new,
    links: &[("more", "/more")],
};

#[tokio::test]
async fn the_index_names_the_service_and_its_links() {
    let server = start(Endpoints::default().into_routes(API)).await;
    let links = json!({
        "docs": "/docs", "openapi": "/openapi.json", "health": "/health", "readyz": "/readyz", "more": "/more"
    });
    let expected = json!({"service": "account-service", "version": "1.2.3", "links": links});
    assert_eq!(server.get("/").await.json(), expected);
    let answer = server.ask("POST / HTTP/1.1", "").await;
    answer.is_error(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), Some("GET,HEAD"));
}

struct Fixed(ReadyReport);

impl Readiness for Fixed {
    fn report(&self) -> ReadyReport {
        self.0.clone()
    }
}

fn readiness(report: &ReadyReport) -> Routes {
    health_endpoints("account-service", Arc::new(Fixed(report.clone())), &HttpConfig::default()).into_routes(API)
}

#[tokio::test]
async fn health_is_told_from_readiness() {
    let mut report = ReadyReport::default();
    report.details.insert("lag".to_owned(), json!(0));
    let server = start(readiness(&report)).await;
    let answer = server.get("/health").await;
    assert_eq!(answer.body, br#"{"status":"healthy","service":"account-service"}"#);
    assert_eq!(server.get("/livez").await.json(), json!({"status": "alive"}));
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status, answer.json()), (200, json!({"status": "ready", "lag": 0})));

    report.reasons = vec!["the view is catching up".to_owned(), "the database is away".to_owned()];
    let server = start(readiness(&report)).await;
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    let expected: Value = json!({
        "error": "not ready: the view is catching up; the database is away",
        "code": "not_ready",
        "status": "not_ready",
        "reasons": ["the view is catching up", "the database is away"],
        "lag": 0,
    });
    assert_eq!(answer.json(), expected);
}
