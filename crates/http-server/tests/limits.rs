//! The limits on clients, as clients meet them.

mod harness;

use std::num::NonZeroU32;
use std::sync::Arc;

use access::Scope;
use axum::Router;
use axum::routing::get;
use http_server::{Api, ClientLimits, Endpoints, HttpConfig, Operation};
use test_harness::{callers, key_of};
use tokio::sync::Semaphore;

use crate::harness::{Answer, start_with};

fn rate(rate: u32) -> HttpConfig {
    HttpConfig {
        address_limits: ClientLimits { rate: NonZeroU32::new(rate), in_flight: None },
        ..HttpConfig::default()
    }
}

fn rate_limit(answer: &Answer) -> [Option<&str>; 3] {
    ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"].map(|name| answer.header(name))
}

#[tokio::test]
async fn requests_above_the_rate_are_429_and_health_checks_are_not_limited() {
    let routes = Router::new().route("/", get(async || "hello")).route("/health", get(async || "healthy"));
    let server = start_with(routes, rate(1)).await;
    let first = server.get("/").await;
    assert_eq!((first.status, rate_limit(&first)), (200, [Some("1"), Some("0"), Some("1")]));
    // A machine that pauses for a second between two requests gives the client another one.
    let mut refused = server.get("/").await;
    while refused.status == 200 {
        refused = server.get("/").await;
    }
    refused.is_error(429, "rate_limited");
    assert_eq!((refused.header("retry-after"), rate_limit(&refused)[1]), (Some("1"), Some("0")));
    let health = server.get("/health").await;
    assert_eq!((health.status, rate_limit(&health)), (200, [None; 3]));
}

#[tokio::test]
async fn a_caller_above_its_rate_leaves_the_others_alone() {
    let config = HttpConfig {
        authenticator: Some(callers(&["alice", "bob"])),
        caller_limits: ClientLimits { rate: NonZeroU32::new(1), in_flight: None },
        ..HttpConfig::default()
    };
    let operation = || Operation::new("get_thing", "Things", "Returns a thing.");
    let endpoints = Endpoints::default().get("/thing", Scope::AccountsRead, async || "hello", operation);
    let api = Api { service: "things", version: "1", title: "Things", description: "", errors: Vec::new, links: &[] };
    let server = start_with(endpoints.into_routes(api), config).await;
    let ask = async |name: &str| {
        server.ask(&format!("GET /thing HTTP/1.1\r\nauthorization: Bearer {}", key_of(name)), "").await
    };
    assert_eq!(ask("alice").await.status, 200);
    let mut refused = ask("alice").await;
    while refused.status == 200 {
        refused = ask("alice").await;
    }
    refused.is_error(429, "rate_limited");
    assert_eq!(ask("bob").await.status, 200);
    assert_eq!(server.get("/thing").await.status, 401);
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_can_read_a_429() {
    let cors = Some("https://shop.example".parse().unwrap());
    let server = start_with(Router::new(), HttpConfig { cors, ..rate(1) }).await;
    let request = "GET / HTTP/1.1\r\norigin: https://shop.example";
    let mut answer = server.ask(request, "").await;
    while answer.status == 404 {
        answer = server.ask(request, "").await;
    }
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (429, Some("https://shop.example")));
}

#[tokio::test]
async fn requests_in_flight_are_bounded() {
    let held = Arc::new(Semaphore::new(0));
    let begun = Arc::new(Semaphore::new(0));
    let (wait, begin) = (Arc::clone(&held), Arc::clone(&begun));
    let handler = async move || {
        begin.add_permits(1);
        wait.acquire().await.unwrap().forget();
        "done"
    };
    let address_limits = ClientLimits { rate: None, in_flight: NonZeroU32::new(1) };
    let server =
        start_with(Router::new().route("/", get(handler)), HttpConfig { address_limits, ..Default::default() }).await;
    let mut first = server.connect().await;
    first.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    begun.acquire().await.unwrap().forget();
    server.get("/").await.is_error(429, "too_many_in_flight");
    held.add_permits(2);
    assert_eq!(first.answer().await.unwrap().status, 200);
    assert_eq!(server.get("/").await.status, 200);
}
