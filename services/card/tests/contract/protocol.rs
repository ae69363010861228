//! The properties of every response.

use std::collections::HashSet;

use serde_json::{Value, json};
use test_harness::wait_until;
use uuid::Uuid;

use crate::service::{Settings, TestService, UNKNOWN_ID, by_account, card};

#[test]
fn health_is_the_seeds_and_the_probes_answer() {
    let service = TestService::start();
    let health = service.get("/health");
    assert_eq!((health.status, &*health.raw), (200, r#"{"status":"healthy","service":"card-service"}"#));
    assert_eq!(health.header("content-type"), "application/json");
    assert_eq!(service.get("/livez").expect(200), json!({"status": "alive"}));
    service.account();
    let mut ready = wait_until("the age is known, and there is no lag", || {
        let ready = service.get("/readyz").expect(200);
        (ready["view"]["lag"] == 0 && ready["view"]["age_seconds"].is_number()).then_some(ready)
    });
    ready["view"]["age_seconds"] = Value::Null;
    // On Kafka these tests use a topic that deletes records, which causes a warning.
    assert!(ready["view"]["warnings"].take().is_array());
    let view = json!({
        "accounts": 1, "active": 1, "blocked": 0, "deleted": 0,
        "caught_up": true, "age_seconds": null, "lag": 0, "records": 1, "quarantined": 0, "failure": null,
        "warnings": null, "waiting": 0,
    });
    assert_eq!(ready, json!({"status": "ready", "view": view}));
}

#[test]
fn a_wrong_method_is_405_and_told_the_right_ones() {
    let service = TestService::start();
    let rest = &["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"][..];
    for (path, allow, wrong) in [
        ("/card", "GET,HEAD,POST,DELETE", &["PUT", "PATCH", "OPTIONS", "BREW"][..]),
        ("/cards", "GET,HEAD", rest),
        ("/cards/by-number", "GET,HEAD", rest),
        ("/cards/by-account", "GET,HEAD", rest),
        ("/account-view", "GET,HEAD", rest),
        ("/health", "GET,HEAD", rest),
        ("/livez", "GET,HEAD", rest),
        ("/readyz", "GET,HEAD", rest),
    ] {
        for method in wrong {
            let answer = service.send(method, path, &[], b"{}".to_vec());
            let text = "method not allowed; the Allow header names those that are";
            answer.expect_error(405, "method_not_allowed", text, None);
            assert_eq!(answer.header("allow"), allow, "{method} {path}");
        }
    }
}

#[test]
fn an_unknown_path_is_404() {
    let service = TestService::start();
    for path in ["/Card", "/card/", "/cards/", "/cards/x", "/card/1", "/account", "/favicon.ico"] {
        for method in ["GET", "POST", "DELETE"] {
            service.send(method, path, &[], b"{}".to_vec()).expect_error(404, "not_found", "no such path", None);
        }
    }
}

#[test]
fn the_index_names_the_service_and_links_to_its_documents_and_health() {
    let links = json!({"docs": "/docs", "openapi": "/openapi.json", "health": "/health", "readyz": "/readyz"});
    let expected = json!({"service": "card-service", "version": env!("CARGO_PKG_VERSION"), "links": links});
    assert_eq!(TestService::start().get("/").expect(200), expected);
}

#[test]
fn on_loopback_another_host_is_refused_but_for_health() {
    let service = TestService::start();
    let host = [("Host", "evil.example")];
    for path in ["/", "/card", "/nowhere"] {
        let answer = service.send("GET", path, &host, Vec::new());
        assert_eq!((answer.status, answer.text("code"), answer.text("field")), (403, "unknown_host", "Host"));
        assert!(answer.text("error").contains("ALLOWED_HOSTS"));
    }
    for path in ["/health", "/livez", "/readyz"] {
        service.send("GET", path, &host, Vec::new()).expect(200);
    }
}

#[test]
fn head_is_get_without_the_body() {
    let service = TestService::start();
    let created = service.card("US", &service.account());
    for (path, status) in
        [(created.header("location"), 200), (&card(UNKNOWN_ID), 404), ("/card", 400), ("/cards", 200), ("/health", 200)]
    {
        let (head, get) = (service.send("HEAD", path, &[], Vec::new()), service.get(path));
        assert_eq!((head.status, &*head.raw, get.status), (status, "", status), "{path}");
        for header in ["content-type", "content-length"] {
            assert_eq!(head.header(header), get.header(header), "{header} of {path}");
        }
    }
}

#[test]
fn a_request_id_is_the_callers_if_it_is_valid_else_a_new_one() {
    let service = TestService::start();
    let created = service.card("US", &service.account());
    let mut seen = HashSet::new();
    for (method, path) in [
        ("GET", "/health"),
        ("GET", "/readyz"),
        ("GET", "/cards"),
        ("GET", "/cards?limit=0"),
        ("GET", "/nowhere"),
        ("GET", &by_account(UNKNOWN_ID)),
        ("POST", "/card"),
        ("PUT", "/card"),
        ("GET", &card(UNKNOWN_ID)),
        ("DELETE", created.header("location")),
        ("DELETE", created.header("location")),
    ] {
        let answer = service.send(method, path, &[("X-Request-Id", "not valid")], Vec::new());
        assert_eq!(answer.header("content-type"), "application/json", "{method} {path}");
        assert!(answer.body.is_object(), "{method} {path}");
        let id = answer.header("x-request-id").to_owned();
        assert_eq!(Uuid::parse_str(&id).unwrap().get_version_num(), 4);
        assert!(seen.insert(id), "{method} {path}");
        let answer = service.send(method, path, &[("X-Request-Id", "mine-1")], Vec::new());
        assert_eq!(answer.header("x-request-id"), "mine-1", "{method} {path}");
    }
}

#[test]
fn pages_of_other_origins_are_not_let_in_unless_configured() {
    let service = TestService::start();
    let origin = ("Origin", "https://shop.example");
    let preflight = [origin, ("Access-Control-Request-Method", "POST")];
    let json = ("Content-Type", "application/json");
    let body = json!({"country": "US", "account_id": service.account()}).to_string();
    let created = service.card("US", &service.account());
    for header in [origin, ("Sec-Fetch-Site", "cross-site")] {
        for (method, path) in [("POST", "/card"), ("DELETE", created.header("location"))] {
            let refused = service.send(method, path, &[header, json], body.clone().into());
            assert_eq!((refused.status, refused.text("code"), refused.text("field")), (403, "cross_site", header.0));
        }
    }
    assert_eq!(service.get("/cards").body["total"], 1);
    for answer in
        [service.send("GET", "/cards", &[origin], Vec::new()), service.send("OPTIONS", "/card", &preflight, Vec::new())]
    {
        let cors = answer.headers.keys().find(|name| name.as_str().starts_with("access-control-"));
        assert_eq!(cors, None);
    }
}

#[test]
fn pages_of_a_configured_origin_are_let_in() {
    let service = TestService::start_with(Settings { cors: Some("https://shop.example"), ..Settings::default() });
    let origin = ("Origin", "https://shop.example");
    let preflight =
        [origin, ("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "content-type")];
    let answer = service.send("OPTIONS", "/card", &preflight, Vec::new());
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, "https://shop.example"));
    assert!(answer.header("access-control-allow-methods").contains("POST"));
    assert!(answer.header("access-control-allow-headers").contains("content-type"));
    let body = json!({"country": "US", "account_id": service.account()}).to_string();
    let json = ("Content-Type", "application/json");
    let answer = service.send("POST", "/card", &[origin, json], body.into());
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (201, "https://shop.example"));
    assert!(answer.header("access-control-expose-headers").contains("location"));
    let other = service.send("GET", "/cards", &[("Origin", "https://evil.example")], Vec::new());
    assert_eq!((other.status, other.header("access-control-allow-origin")), (200, ""));
}
