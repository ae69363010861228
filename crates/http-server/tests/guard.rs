//! Requests that are refused before routing: because of their `Host`, or of the web page that sends them.

mod harness;

use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use harness::{Answer, Server, start_with};
use http_server::{HttpConfig, JsonBody, finish, serve};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

#[derive(Deserialize)]
struct Form {}

fn router() -> Router {
    let ok = async || Json("ok");
    let write = async |JsonBody(Form {}): JsonBody<Form>| (StatusCode::CREATED, Json("written"));
    Router::new().route("/thing", get(ok).delete(ok)).route("/things", post(write)).route("/health", get(ok))
}

async fn server(cors: Option<&str>, hosts: &str) -> Server {
    let cors = cors.map(|origins| origins.parse().expect("origins"));
    let allowed_hosts = if hosts.is_empty() { Default::default() } else { hosts.parse().expect("names") };
    start_with(router(), HttpConfig { cors, allowed_hosts, ..Default::default() }).await
}

async fn get_with(server: &Server, target: &str, headers: &str) -> Answer {
    server.send(format!("GET {target} HTTP/1.1\r\n{headers}\r\n")).await
}

#[tokio::test]
async fn a_request_without_one_valid_host_is_400_on_every_path() {
    let server = server(None, "").await;
    for path in ["/thing", "/health", "/nowhere", "http://localhost/thing"] {
        for headers in [
            "",
            "host: localhost\r\nhost: localhost\r\n",
            "host: \r\n",
            "host: a b\r\n",
            "host: localhost:80:80\r\n",
            "host: localhost:x\r\n",
            "host: localhost:65536\r\n",
            "host: user@localhost\r\n",
            "host: localhost/\r\n",
            "host: http://localhost\r\n",
            "host: [::1\r\n",
            "host: ::1\r\n",
            "host: [localhost]\r\n",
            "host: l%6\r\n",
            "host: \u{e9}\r\n",
        ] {
            let answer = get_with(&server, path, headers).await;
            answer.is_error(400, "invalid_host");
            assert_eq!(answer.json()["field"], "Host", "{path} {headers}");
        }
    }
    get_with(&server, "http://user@localhost/thing", "host: localhost\r\n").await.is_error(400, "invalid_host");
    assert_eq!(server.send("GET /thing HTTP/1.0\r\n\r\n").await.status, 200, "HTTP/1.0 needs none");
    server.send("GET /thing HTTP/1.0\r\nhost: a\r\nhost: a\r\n\r\n").await.is_error(400, "invalid_host");
    // After the refusal the rest of the body is read and the connection stays open.
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.send("POST /things HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}").await;
        client.answer().await.unwrap().is_error(400, "invalid_host");
    }
}

#[tokio::test]
async fn on_loopback_a_host_is_local_or_configured() {
    let server = server(None, "accounts.example, b.example").await;
    for host in [
        "localhost",
        "LOCALHOST:8081",
        "localhost.",
        "localhost:",
        "127.0.0.1:1",
        "192.0.2.1",
        "[::1]",
        "[::1]:8081",
        "Accounts.example:80",
        "b.example",
    ] {
        assert_eq!(get_with(&server, "/thing", &format!("host: {host}\r\n")).await.status, 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "c.accounts.example", "1"] {
        let answer = get_with(&server, "/thing", &format!("host: {host}\r\n")).await;
        answer.is_error(403, "unknown_host");
        let json = answer.json();
        assert!(json["error"].as_str().unwrap().contains("ALLOWED_HOSTS") && json["field"] == "Host", "{json}");
        get_with(&server, "/nowhere", &format!("host: {host}\r\n")).await.is_error(403, "unknown_host");
        assert_eq!(get_with(&server, "/health", &format!("host: {host}\r\n")).await.status, 200, "{host}");
    }
    // The host of the target takes precedence over the header.
    let answer = get_with(&server, "http://evil.example/thing", "host: localhost\r\n").await;
    answer.is_error(403, "unknown_host");
    assert_eq!(get_with(&server, "http://localhost/thing", "host: evil.example\r\n").await.status, 200);
}

#[tokio::test]
async fn elsewhere_any_host_will_do() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
    let config = HttpConfig::default();
    // A server on all addresses accepts any host on loopback, too.
    let app = finish(router(), "test-service", &config, "0.0.0.0".parse().unwrap());
    let serving = tokio::spawn(serve(listener, app, config.limits, shutdown.clone()));
    let server = Server { address, shutdown, serving };
    assert_eq!(get_with(&server, "/thing", "host: accounts.example\r\n").await.status, 200);
}

async fn write(server: &Server, headers: &str) -> Answer {
    let head = "POST /things HTTP/1.1\r\nhost: localhost:8081\r\ncontent-type: application/json";
    server.send(format!("{head}\r\n{headers}content-length: 2\r\n\r\n{{}}")).await
}

#[tokio::test]
async fn a_write_of_another_sites_page_is_403() {
    let server = server(None, "").await;
    for headers in [
        "",
        "sec-fetch-site: same-origin\r\n",
        "sec-fetch-site: none\r\n",
        "origin: http://localhost:8081\r\n",
        "origin: https://LOCALHOST:8081\r\n",
        "sec-fetch-site: same-origin\r\norigin: https://accounts.example\r\n",
    ] {
        assert_eq!(write(&server, headers).await.status, 201, "{headers}");
    }
    for (headers, field) in [
        ("sec-fetch-site: cross-site\r\n", "Sec-Fetch-Site"),
        ("sec-fetch-site: same-site\r\n", "Sec-Fetch-Site"),
        ("sec-fetch-site: unheard-of\r\n", "Sec-Fetch-Site"),
        ("sec-fetch-site: same-origin\r\nsec-fetch-site: cross-site\r\n", "Sec-Fetch-Site"),
        ("sec-fetch-site: cross-site\r\norigin: http://localhost:8081\r\n", "Origin"),
        ("origin: null\r\n", "Origin"),
        ("origin: \r\n", "Origin"),
        ("origin: http://localhost\r\n", "Origin"),
        ("origin: http://localhost:3000\r\n", "Origin"),
        ("origin: http://evil.example\r\n", "Origin"),
        ("origin: ftp://localhost:8081\r\n", "Origin"),
        ("origin: http://localhost:8081\r\norigin: http://evil.example\r\n", "Origin"),
    ] {
        let answer = write(&server, headers).await;
        answer.is_error(403, "cross_site");
        assert_eq!(answer.json()["field"], field, "{headers}");
    }
    let delete = "DELETE /thing HTTP/1.1\r\nhost: localhost\r\n";
    server.send(format!("{delete}origin: http://evil.example\r\n\r\n")).await.is_error(403, "cross_site");
    assert_eq!(server.send(format!("{delete}origin: http://localhost:80\r\n\r\n")).await.status, 200);
    let read = get_with(&server, "/thing", "host: localhost\r\norigin: http://evil.example\r\n").await;
    assert_eq!(read.status, 200, "the browser withholds the response from the page");
}

#[tokio::test]
async fn cors_lets_the_writes_of_its_origins_in() {
    let listed = server(Some("https://shop.example"), "").await;
    let any = server(Some("*"), "").await;
    for (headers, in_list) in [
        ("origin: https://shop.example\r\n", true),
        ("origin: https://shop.example\r\nsec-fetch-site: cross-site\r\n", true),
        ("origin: https://evil.example\r\nsec-fetch-site: cross-site\r\n", false),
        ("origin: null\r\nsec-fetch-site: cross-site\r\n", false),
        ("sec-fetch-site: cross-site\r\n", false),
    ] {
        assert_eq!(write(&listed, headers).await.status, if in_list { 201 } else { 403 }, "{headers}");
        assert_eq!(write(&any, headers).await.status, 201, "{headers}");
    }
}

#[tokio::test]
async fn a_browsers_body_says_that_it_is_json() {
    let server = server(Some("*"), "").await;
    let head = "POST /things HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n";
    assert_eq!(server.send(format!("{head}\r\n{{}}")).await.status, 201, "a caller that is no browser");
    let json = "content-type: application/json\r\n";
    for browser in ["origin: http://localhost\r\n", "sec-fetch-site: same-origin\r\n"] {
        let answer = server.send(format!("{head}{browser}\r\n{{}}")).await;
        answer.is_error(415, "unsupported_media_type");
        assert_eq!(answer.json()["field"], "Content-Type");
        assert_eq!(server.send(format!("{head}{browser}{json}\r\n{{}}")).await.status, 201, "{browser}");
    }
    let two = server.send(format!("{head}{json}content-type: text/plain\r\n\r\n{{}}")).await;
    two.is_error(415, "unsupported_media_type");
}
