//! What every response has, whatever it answers.

use std::collections::HashSet;

use serde_json::json;
use uuid::Uuid;

use crate::service::{TestService, UNKNOWN_ID, account};

#[test]
fn health_is_the_seeds_and_the_probes_answer() {
    let service = TestService::start();
    let health = service.get("/health");
    assert_eq!((health.status, &*health.raw), (200, r#"{"status":"healthy","service":"account-service"}"#));
    assert_eq!(health.header("content-type"), "application/json");
    assert_eq!(service.get("/livez").expect(200), json!({"status": "alive"}));
    let ready = service.get("/readyz").expect(200);
    assert_eq!(
        ready,
        json!({"status": "ready", "relay": {"publishing": true, "published": 0, "waiting": 0, "failure": null}})
    );
    service.new_id();
    service.log_of(1);
    test_harness::wait_until("readyz shows what is published", || {
        (service.get("/readyz").expect(200)["relay"]["published"] == 1).then_some(())
    });
}

#[test]
fn a_wrong_method_is_405_and_told_the_right_ones() {
    let service = TestService::start();
    for (path, allow, wrong) in [
        ("/account", "GET,HEAD,POST,PUT,PATCH,DELETE", &["OPTIONS", "BREW"][..]),
        ("/accounts", "GET,HEAD", &["POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
        ("/accounts/by-number", "GET,HEAD", &["POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
        ("/health", "GET,HEAD", &["POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
        ("/livez", "GET,HEAD", &["POST", "DELETE"]),
        ("/readyz", "GET,HEAD", &["POST", "DELETE"]),
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
    let id = service.new_id();
    let below = format!("/account/{id}");
    for path in ["/Account", "/account/", "//account", "/accounts/", "/accounts/x", &below, "/card", "/favicon.ico"] {
        for method in ["GET", "POST", "DELETE"] {
            service.send(method, path, &[], b"{}".to_vec()).expect_error(404, "not_found", "no such path", None);
        }
    }
}

#[test]
fn the_index_names_the_service_and_links_to_its_documents_and_health() {
    let links = json!({"docs": "/docs", "openapi": "/openapi.json", "health": "/health", "readyz": "/readyz", "asyncapi": "/asyncapi.json"});
    let expected = json!({"service": "account-service", "version": env!("CARGO_PKG_VERSION"), "links": links});
    assert_eq!(TestService::start().get("/").expect(200), expected);
}

#[test]
fn on_loopback_another_host_is_refused_but_for_health() {
    let service = TestService::start();
    let host = [("Host", "evil.example")];
    for path in ["/", "/account", "/nowhere"] {
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
    let created = service.create("John Doe", "US");
    for (path, status, etag) in [
        (created.header("location"), 200, "\"1\""),
        (&account(UNKNOWN_ID), 404, ""),
        ("/account", 400, ""),
        ("/accounts", 200, ""),
        ("/health", 200, ""),
        ("/nowhere", 404, ""),
    ] {
        let (head, get) = (service.send("HEAD", path, &[], Vec::new()), service.get(path));
        assert_eq!((head.status, &*head.raw, head.header("etag")), (status, "", etag), "{path}");
        assert_eq!(get.status, status);
        for header in ["content-type", "content-length", "etag"] {
            assert_eq!(head.header(header), get.header(header), "{header} of {path}");
        }
    }
}

#[test]
fn a_request_id_is_the_callers_if_it_is_valid() {
    let service = TestService::start();
    let longest = "x".repeat(128);
    for id in ["mine-1", "A.b_c:d/e+f=", &longest] {
        for path in ["/accounts", "/account", "/nowhere"] {
            let answer = service.send("GET", path, &[("X-Request-Id", id)], Vec::new());
            assert_eq!(answer.header("x-request-id"), id, "{path}");
        }
    }
    let too_long = "x".repeat(129);
    for id in ["", "not valid", "a,b", "<script>", &too_long] {
        let answer = service.send("GET", "/accounts", &[("X-Request-Id", id)], Vec::new());
        assert_eq!(Uuid::parse_str(answer.header("x-request-id")).unwrap().get_version_num(), 4, "{id}");
    }
}

#[test]
fn every_response_has_a_request_id_of_its_own_and_is_json() {
    let service = TestService::start();
    let id = service.new_id();
    let mut seen = HashSet::new();
    for (method, path, body) in [
        ("GET", "/health", ""),
        ("GET", "/readyz", ""),
        ("GET", "/accounts", ""),
        ("GET", "/accounts?limit=0", ""),
        ("GET", "/nowhere", ""),
        ("BREW", "/account", ""),
        ("POST", "/account", "{"),
        ("POST", "/account", r#"{"beholder_name":"John Doe","country_code":"US"}"#),
        ("GET", &account(&id), ""),
        ("GET", &account(UNKNOWN_ID), ""),
        ("PUT", &account(&id), r#"{"status":"BLOCKED"}"#),
        ("DELETE", &account(&id), ""),
        ("DELETE", &account(&id), ""),
    ] {
        let answer = service.send(method, path, &[], body.into());
        assert_eq!(answer.header("content-type"), "application/json", "{method} {path}");
        assert!(answer.body.is_object(), "{method} {path}");
        assert!(seen.insert(answer.header("x-request-id").to_owned()), "{method} {path}");
    }
}

#[test]
fn pages_of_other_origins_are_not_let_in_unless_configured() {
    let service = TestService::start();
    let origin = ("Origin", "https://shop.example");
    let preflight = [origin, ("Access-Control-Request-Method", "PATCH")];
    let json = ("Content-Type", "application/json");
    let body = br#"{"beholder_name":"J","country_code":"US"}"#;
    let refused = service.send("POST", "/account", &[origin, json], body.to_vec());
    assert_eq!((refused.status, refused.text("code"), refused.text("field")), (403, "cross_site", "Origin"));
    let site = ("Sec-Fetch-Site", "cross-site");
    let unnamed = service.send("POST", "/account", &[site, json], body.to_vec());
    assert_eq!((unnamed.status, unnamed.text("code"), unnamed.text("field")), (403, "cross_site", "Sec-Fetch-Site"));
    let id = service.new_id();
    let deleted = service.send("DELETE", &account(&id), &[origin], Vec::new());
    assert_eq!((deleted.status, deleted.text("code")), (403, "cross_site"));
    assert_eq!(service.list("")["total"], 1);
    for answer in [
        service.send("GET", "/accounts", &[origin], Vec::new()),
        refused,
        service.send("OPTIONS", "/account", &preflight, Vec::new()),
    ] {
        let cors = answer.headers.keys().find(|name| name.as_str().starts_with("access-control-"));
        assert_eq!(cors, None);
    }
}

#[test]
fn pages_of_a_configured_origin_are_let_in() {
    let service = TestService::start_with(clock::Clock::system(), Some("https://shop.example"));
    let origin = ("Origin", "https://shop.example");
    let preflight = [
        origin,
        ("Access-Control-Request-Method", "PATCH"),
        ("Access-Control-Request-Headers", "content-type,if-match"),
    ];
    let answer = service.send("OPTIONS", "/account", &preflight, Vec::new());
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), "https://shop.example");
    assert_eq!(answer.header("access-control-allow-methods"), "GET,POST,PUT,PATCH,DELETE");
    assert_eq!(
        answer.header("access-control-allow-headers"),
        "authorization,if-match,if-none-match,content-type,x-request-id,traceparent,account-version,prefer,idempotency-key"
    );

    let body = br#"{"beholder_name":"John Doe","country_code":"US"}"#;
    let json = ("Content-Type", "application/json");
    let answer = service.send("POST", "/account", &[origin, json], body.to_vec());
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (201, "https://shop.example"));
    assert_eq!(
        answer.header("access-control-expose-headers"),
        "etag,location,x-request-id,retry-after,account-version,preference-applied,idempotent-replayed,www-authenticate,\
         ratelimit-limit,ratelimit-remaining,ratelimit-reset"
    );
    let error = service.send("GET", "/account", &[origin], Vec::new());
    assert_eq!((error.status, error.header("access-control-allow-origin")), (400, "https://shop.example"));
    let other = service.send("GET", "/accounts", &[("Origin", "https://evil.example")], Vec::new());
    assert_eq!((other.status, other.header("access-control-allow-origin")), (200, ""));
}
