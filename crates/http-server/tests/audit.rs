//! The audit file: a line for each write request.

mod harness;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use access::{Authenticator, Key, Scope};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use http_server::{
    Api, ApiError, AuditFile, Content, Endpoints, HttpConfig, Operation, Readiness, ReadyReport, health_endpoints,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::harness::{Server, start_with};

const API: Api = Api {
    service: "thing-service",
    version: "1.2.3",
    title: "Things",
    description: "Keeps things.",
    errors: Vec::new,
    links: &[],
};

const ID: &str = "550e8400-e29b-41d4-a716-446655440000";

const MANY_BYTES: u64 = 1 << 20;

struct Ready;

impl Readiness for Ready {
    fn report(&self) -> ReadyReport {
        ReadyReport::default()
    }
}

fn operation() -> Operation {
    Operation::new("do_thing", "Things", "Does a thing.").answer(200, "Done.", Content::message("done"), &[])
}

async fn server(file: Arc<AuditFile>, scopes: &[Scope]) -> Server {
    let key = Key {
        id: "k".to_owned(),
        name: "alice\n\"a\"".into(),
        hash: Sha256::digest("tdm_k_s").into(),
        scopes: scopes.iter().copied().collect(),
        expires: None,
    };
    let authenticator = Some(Authenticator::of_keys([key].into_iter().collect()));
    let config = HttpConfig { authenticator, audit_file: Some(file), ..HttpConfig::default() };
    let created = async || (StatusCode::CREATED, [(LOCATION, format!("/thing?id={ID}"))]);
    let refused = async || ApiError::new(StatusCode::CONFLICT, "thing_deleted", "deleted");
    let endpoints = Endpoints::default()
        .get("/thing", Scope::AccountsWrite, async || "read", operation)
        .post("/thing", Scope::AccountsWrite, created, operation)
        .delete("/thing", Scope::AccountsWrite, refused, operation)
        .post("/admin", Scope::Admin, async || "done", operation)
        .merge(health_endpoints("thing-service", Arc::new(Ready), &config));
    start_with(endpoints.into_routes(API), config).await
}

/// Stops the server, which drops the last reference to the file.
async fn stop(server: Server) {
    server.shutdown.cancel();
    server.serving.await.expect("a server that does not panic");
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("an audit file");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[tokio::test]
async fn each_write_of_a_caller_is_a_line_without_names_and_secrets() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("audit.jsonl");
    let server = server(AuditFile::open(&path, MANY_BYTES, 1).unwrap(), &[Scope::AccountsWrite]).await;
    let with_key = "authorization: Bearer tdm_k_s\r\nidempotency-key: hidden\r\nx-request-id: r-1";
    for (request, headers) in [
        ("POST /thing?secret=hidden HTTP/1.1", with_key),
        ("DELETE /thing?id=550e8400-e29b-41d4-a716-446655440000 HTTP/1.1", with_key),
        ("DELETE /thing?%69d=550e8400%2De29b-41d4-a716-446655440000 HTTP/1.1", with_key),
        ("DELETE /thing?partition=2&offset=17 HTTP/1.1", with_key),
        ("DELETE /thing?id=hidden HTTP/1.1", with_key),
        ("POST /admin HTTP/1.1", with_key),
        ("POST /admin HTTP/1.1", "authorization: Bearer tdm_k_hidden"),
        ("POST /nothing HTTP/1.1", "x-request-id: r-1"),
        ("PUT /thing HTTP/1.1", with_key),
        ("POST /thing HTTP/1.1", "sec-fetch-site: cross-site"),
        ("GET /thing HTTP/1.1", with_key),
        ("OPTIONS /thing HTTP/1.1", with_key),
    ] {
        server.ask(&format!("{request}\r\n{headers}"), "{\"beholder_name\":\"hidden\"}").await;
    }
    stop(server).await;
    assert!(!std::fs::read_to_string(&path).unwrap().contains("hidden"));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let lines = lines(&path);
    // Anyone could fill the audit with requests that have no caller or no route.
    let seen: Vec<_> = lines
        .iter()
        .map(|line| json!([line["caller"], line["method"], line["path"], line["id"], line["status"], line["code"]]))
        .collect();
    let alice = "alice\n\"a\"";
    assert_eq!(
        seen,
        [
            json!([alice, "POST", "/thing", ID, 201, null]),
            json!([alice, "DELETE", "/thing", ID, 409, "thing_deleted"]),
            json!([alice, "DELETE", "/thing", ID, 409, "thing_deleted"]),
            json!([alice, "DELETE", "/thing", "2:17", 409, "thing_deleted"]),
            json!([alice, "DELETE", "/thing", null, 409, "thing_deleted"]),
            json!([alice, "POST", "/admin", null, 403, "insufficient_scope"]),
        ]
    );
    let first = &lines[0];
    assert_eq!((&first["request_id"], &first["client"]), (&json!("r-1"), &json!("127.0.0.1")));
    assert_eq!(first["service"], "test-service");
    assert!(first["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{first}");
}

#[tokio::test]
async fn a_large_file_is_replaced_and_the_latest_are_kept() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("audit.jsonl");
    for request in 0..5 {
        // Each line is larger than the file may be.
        let server = server(AuditFile::open(&path, 1, 2).unwrap(), &[Scope::AccountsWrite]).await;
        let head = format!("POST /thing HTTP/1.1\r\nauthorization: Bearer tdm_k_s\r\nx-request-id: r-{request}");
        server.ask(&head, "").await;
        stop(server).await;
    }
    let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]);
    for (name, request) in [("audit.jsonl", "r-4"), ("audit.jsonl.1", "r-3"), ("audit.jsonl.2", "r-2")] {
        let lines = lines(&folder.path().join(name));
        assert_eq!((lines.len(), &lines[0]["request_id"]), (1, &json!(request)), "{name}");
    }
}

#[tokio::test]
async fn lines_that_the_disk_does_not_take_are_counted_and_requests_are_answered() {
    let server = server(AuditFile::open(Path::new("/dev/full"), MANY_BYTES, 1).unwrap(), &[Scope::Admin]).await;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let answer = server.ask("POST /thing HTTP/1.1\r\nauthorization: Bearer tdm_k_s", "").await;
        assert_eq!(answer.status, 201);
        assert_eq!(server.get("/readyz").await.status, 200);
        // The lines are lost in another thread.
        if file_warning(&server).await.is_some() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "no warning");
    }
    stop(server).await;
}

async fn file_warning(server: &Server) -> Option<String> {
    let answer = server.ask("GET /readyz HTTP/1.1\r\nauthorization: Bearer tdm_k_s", "").await.json();
    answer["warnings"][0].as_str().map(ToOwned::to_owned)
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_an_error_that_names_the_setting() {
    let error = AuditFile::open(Path::new("/no/such/folder/audit"), MANY_BYTES, 1).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot open AUDIT_FILE /no/such/folder/audit: ") && error.lines().count() == 1,
        "{error}"
    );
}
