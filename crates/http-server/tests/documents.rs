//! The OpenAPI document, and the page that shows it.

mod harness;

use access::Scope;
use axum::Json;
use axum::http::StatusCode;
use harness::start;
use http_server::{Api, ApiError, Content, Endpoints, Operation};
use serde_json::{Value, json};

const API: Api = Api {
    service: "test-service",
    version: "1.2.3",
    title: "A test service",
    description: "What it does.",
    errors: || {
        let reused =
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", "the key is another request's");
        vec![ApiError::invalid("size", "too_small", "size must be at least 1"), reused]
    },
    links: &[],
};

fn put_thing_operation() -> Operation {
    Operation::new("put_thing", "Things", "Changes a thing.")
        .idempotent()
        .body(Content::inline(json!({ "type": "object" }), json!({ "size": 3 })))
        .answer(200, "It is changed.", Content::message("Changed"), &["ETag"])
        .errors(&["too_small"])
}

async fn document() -> Value {
    let put_thing = async || Json(json!({ "message": "Changed" }));
    let endpoints = Endpoints::default().put("/thing", Scope::AccountsWrite, put_thing, put_thing_operation);
    start(endpoints.into_routes(API)).await.get("/openapi.json").await.json()
}

#[tokio::test]
async fn an_operation_has_its_own_errors_and_those_of_the_layers() {
    let document = document().await;
    assert_eq!((&document["openapi"], &document["info"]["version"]), (&json!("3.1.0"), &json!("1.2.3")));
    let responses = document["paths"]["/thing"]["put"]["responses"].as_object().unwrap();
    let statuses: Vec<_> = responses.keys().map(String::as_str).collect();
    assert_eq!(statuses, ["200", "400", "401", "403", "405", "408", "413", "414", "415", "422", "429", "431", "503"]);
    let invalid = &responses["400"]["content"]["application/json"];
    let codes = invalid["schema"]["allOf"][1]["properties"]["code"]["enum"].as_array().unwrap();
    for code in ["too_small", "malformed_json", "incomplete_body", "invalid_host", "invalid_idempotency_key"] {
        assert!(codes.contains(&json!(code)), "{code}");
    }
    let example = json!({"error": "size must be at least 1", "code": "too_small", "field": "size"});
    assert_eq!(invalid["examples"]["too_small"]["value"], example);
    assert!(responses["200"]["headers"].get("Idempotent-Replayed").is_some());
    let unavailable = &responses["503"]["content"]["application/json"];
    let codes = &unavailable["schema"]["allOf"][1]["properties"]["code"]["enum"];
    assert_eq!(codes, &json!(["overloaded", "unavailable"]));
    assert!(responses["503"]["headers"].get("Retry-After").is_some());
}

#[tokio::test]
async fn the_document_has_the_endpoints_of_every_service() {
    let document = document().await;
    let index = document["paths"]["/"]["get"]["responses"].as_object().unwrap();
    assert!(index.contains_key("403") && index.contains_key("503") && index.contains_key("304"));
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.keys().collect::<Vec<_>>(), ["/", "/docs", "/docs/{file}", "/openapi.json", "/thing"]);
}

#[tokio::test]
async fn the_page_loads_only_files_of_the_service() {
    let server = start(Endpoints::default().into_routes(API)).await;
    let page = server.get("/docs").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; "), "{policy}");
    let html = String::from_utf8(page.body).unwrap();
    let links: Vec<_> = html.split(['"']).filter(|text| text.starts_with("docs/")).collect();
    assert_eq!(links, ["docs/favicon-32x32.png", "docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/start.js"]);
    assert!(!html.contains("//"), "{html}");
    for (file, media_type) in links.iter().zip(["image/png", "text/css", "text/javascript", "text/javascript"]) {
        let answer = server.get(&format!("/{file}")).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(media_type)), "{file}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert!(!answer.body.is_empty());
    }
    server.get("/docs/index.html").await.is_error(404, "not_found");
}
