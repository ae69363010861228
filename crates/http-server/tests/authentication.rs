//! Which requests a service with authentication answers.

mod harness;

use std::sync::Arc;

use access::{Access, Authenticator, Key, Scope};
use http_server::{
    Api, CallerName, Content, Endpoints, HttpConfig, Operation, Readiness, ReadyReport, health_endpoints,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::harness::{Answer, Server, start_with};

const API: Api = Api {
    service: "thing-service",
    version: "1.2.3",
    title: "Things",
    description: "Keeps things.",
    errors: Vec::new,
    links: &[],
};

/// A key of each scope has the scope's name as its id, and the secret `s`.
fn authenticator() -> Arc<Authenticator> {
    let key = |scope: Scope| {
        let id = scope.name().replace(':', "");
        let hash = Sha256::digest(format!("tdm_{id}_s")).into();
        Key { id, name: scope.name().into(), hash, scopes: [scope].into_iter().collect(), expires: None }
    };
    let ended = Key { id: "ended".to_owned(), expires: "2026-01-01T00:00:00Z".parse().ok(), ..key(Scope::Admin) };
    let hash = Sha256::digest("tdm_ended_s").into();
    Authenticator::of_keys(Scope::ALL.into_iter().map(key).chain([Key { hash, ..ended }]).collect())
}

fn operation() -> Operation {
    Operation::new("do_thing", "Things", "Does a thing.").answer(200, "Done.", Content::message("done"), &[])
}

struct Ready;

impl Readiness for Ready {
    fn report(&self) -> ReadyReport {
        let mut report = ReadyReport::default();
        report.details.insert("lag".to_owned(), json!(7));
        report
    }
}

async fn server(config: HttpConfig) -> Server {
    let name = async |CallerName(name): CallerName| name.unwrap_or("nobody".into()).to_string();
    let endpoints = Endpoints::default()
        .get("/thing", Scope::AccountsRead, name, operation)
        .post("/thing", Scope::AccountsWrite, name, operation)
        .get("/open", Access::Open, name, operation)
        .merge(health_endpoints("thing-service", Arc::new(Ready), &config));
    start_with(endpoints.into_routes(API), config).await
}

async fn server_with_keys() -> Server {
    server(HttpConfig { authenticator: Some(authenticator()), ..HttpConfig::default() }).await
}

async fn ask(server: &Server, request: &str, authorization: &str) -> Answer {
    let authorization =
        if authorization.is_empty() { String::new() } else { format!("\r\nauthorization: {authorization}") };
    server.ask(&format!("{request} HTTP/1.1{authorization}"), "").await
}

#[tokio::test]
async fn a_route_answers_callers_with_its_scope_or_admin() {
    let server = server_with_keys().await;
    for (request, needed) in [
        ("GET /thing", Scope::AccountsRead),
        ("HEAD /thing", Scope::AccountsRead),
        ("POST /thing", Scope::AccountsWrite),
    ] {
        for scope in Scope::ALL {
            let key = format!("bEARER tdm_{}_s", scope.name().replace(':', ""));
            let answer = ask(&server, request, &key).await;
            if scope == needed || scope == Scope::Admin {
                assert_eq!(answer.status, 200, "{request} with {scope:?}");
                assert!(request.starts_with("HEAD") || answer.body == scope.name().as_bytes());
            } else {
                assert_eq!(answer.status, 403, "{request} with {scope:?}");
                let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{}\"", needed.name());
                assert_eq!(answer.header("www-authenticate"), Some(&*challenge));
                assert!(request.starts_with("HEAD") || answer.json()["code"] == "insufficient_scope");
            }
        }
    }
}

#[tokio::test]
async fn credentials_that_name_no_caller_are_refused() {
    let server = server_with_keys().await;
    let answer = ask(&server, "GET /thing", "").await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(answer.json()["code"], "unauthenticated");
    for authorization in [
        "Basic dGRtOnM=",
        "Bearer",
        "Bearer ",
        "Bearer tdm_admin_t",
        "Bearer tdm_nobody_s",
        "Bearer tdm_ended_s",
        "Bearer tdm_admin",
        "Bearer admin_s",
        "tdm_admin_s",
        "Bearer tdm_admin_s, Bearer tdm_admin_s",
        "Bearer tdm_admin_s\r\nauthorization: Bearer tdm_admin_s",
    ] {
        let answer = ask(&server, "GET /thing", authorization).await;
        assert_eq!(answer.status, 401, "{authorization}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"invalid_token\""), "{authorization}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("tdm_"), "the answer repeats no credentials");
    }
}

#[tokio::test]
async fn open_routes_answer_anyone_and_unknown_ones_stay_unknown() {
    let server = server_with_keys().await;
    for authorization in ["", "Bearer tdm_nobody_s"] {
        for path in ["/", "/open", "/docs", "/docs/start.js", "/openapi.json", "/health", "/livez", "/readyz"] {
            assert_eq!(ask(&server, &format!("GET {path}"), authorization).await.status, 200, "{path}");
        }
        assert_eq!(ask(&server, "DELETE /thing", authorization).await.status, 405);
        for path in ["/thing/", "//thing", "/%74hing", "/./thing", "/Thing", "/thing;a", "/nothing"] {
            assert_eq!(ask(&server, &format!("GET {path}"), authorization).await.status, 404, "{path}");
        }
        assert_eq!(ask(&server, "GET http://localhost/thing", authorization).await.status, 401);
    }
    assert_eq!(ask(&server, "GET /open", "Bearer tdm_admin_s").await.body, b"nobody", "nothing is checked");
}

#[tokio::test]
async fn details_of_readiness_are_for_admins() {
    let with_keys = server_with_keys().await;
    assert_eq!(ask(&with_keys, "GET /readyz", "Bearer tdm_admin_s").await.json()["lag"], 7);
    for authorization in ["", "Bearer tdm_accountsread_s", "Bearer tdm_admin_t"] {
        assert_eq!(ask(&with_keys, "GET /readyz", authorization).await.json(), json!({ "status": "ready" }));
    }
    let open = server(HttpConfig::default()).await;
    assert_eq!(ask(&open, "GET /readyz", "").await.json()["lag"], 7);
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_can_read_a_refusal() {
    let cors = Some("https://shop.example".parse().unwrap());
    let server = server(HttpConfig { authenticator: Some(authenticator()), cors, ..HttpConfig::default() }).await;
    let answer = ask(&server, "GET /thing", "Bearer tdm_nobody_s\r\norigin: https://shop.example").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (401, Some("https://shop.example")));
    let preflight = "Basic x\r\norigin: https://shop.example\r\naccess-control-request-method: POST";
    let answer = ask(&server, "OPTIONS /thing", preflight).await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("access-control-allow-headers").unwrap().contains("authorization"));
}

#[tokio::test]
async fn the_document_names_the_scope_of_a_route() {
    let document = server(HttpConfig::default()).await.get("/openapi.json").await.json();
    assert_eq!(document["paths"]["/thing"]["post"]["security"], json!([{ "bearer": ["accounts:write"] }]));
    assert!(document["paths"]["/thing"]["post"]["responses"]["401"].is_object());
    assert!(document["paths"]["/open"]["get"].get("security").is_none());
    assert!(document["paths"]["/open"]["get"]["responses"].get("401").is_none());
}
