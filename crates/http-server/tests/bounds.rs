//! The server's bounds: slow clients, the connection cap, the drain.

mod harness;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use harness::{start, start_with};
use http_server::ServeSettings;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

/// A handler that says when it has begun, and ends when told to.
fn held() -> (Router, Arc<Notify>, Arc<Semaphore>) {
    let (begun, end) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let (handler_begun, handler_end) = (begun.clone(), end.clone());
    let handler = async move || {
        handler_begun.notify_one();
        handler_end.acquire().await.expect("never closed").forget();
        "done"
    };
    (Router::new().route("/", get(handler)), begun, end)
}

// In these three the clock is paused: it jumps to the next timer as soon as everyone waits.
#[tokio::test(start_paused = true)]
async fn a_client_that_sends_no_full_head_is_cut_off() {
    let server = start(hello()).await;
    for part in ["", "GET / HTTP/1.1\r\nhos"] {
        let before = tokio::time::Instant::now();
        let mut client = server.connect().await;
        client.send(part).await;
        assert!(client.answer().await.is_none());
        assert!(before.elapsed() >= http_server::HEADER_READ_TIMEOUT);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let server = start(hello()).await;
    let mut client = server.connect().await;
    client.send(REQUEST).await;
    assert_eq!(client.answer().await.unwrap().body, b"hello");
    assert!(client.answer().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut_off() {
    let router = hello().route("/much", get(async || vec![b'x'; 64 * 1024 * 1024]));
    let server = start_with(router, None, ServeSettings { max_connections: 1, ..Default::default() }).await;
    let mut deaf = server.connect().await;
    deaf.send("GET /much HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let mut next = server.connect().await;
    next.send(REQUEST).await;
    assert_eq!(next.answer().await.unwrap().body, b"hello");
}

#[tokio::test]
async fn a_connection_over_the_cap_waits_for_its_turn() {
    let (router, begun, end) = held();
    let server = start_with(router, None, ServeSettings { max_connections: 1, ..Default::default() }).await;
    let mut first = server.connect().await;
    first.send(REQUEST).await;
    begun.notified().await;
    let mut second = server.connect().await; // into the backlog
    second.send(REQUEST).await;
    end.add_permits(2);
    assert_eq!(first.answer().await.unwrap().body, b"done");
    // The first connection is open still, so the second request has not begun; it does when that one goes.
    assert!(tokio::time::timeout(Duration::ZERO, begun.notified()).await.is_err());
    drop(first);
    assert_eq!(second.answer().await.unwrap().body, b"done");
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_server_ends() {
    let (router, begun, end) = held();
    let server = start(router).await;
    let mut idle = server.connect().await;
    idle.send("").await;
    let mut client = server.connect().await;
    client.send(REQUEST).await;
    begun.notified().await;
    server.shutdown.cancel();
    assert!(idle.answer().await.is_none(), "an idle connection is closed at once");
    end.add_permits(1);
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.body.as_slice(), answer.header("connection")), (&b"done"[..], Some("close")));
    server.serving.await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn the_drain_comes_to_an_end() {
    let (router, begun, _end) = held();
    let settings = ServeSettings { drain_timeout: Duration::from_millis(1), ..Default::default() };
    let server = start_with(router, None, settings).await;
    let mut client = server.connect().await;
    client.send(REQUEST).await;
    begun.notified().await;
    server.shutdown.cancel();
    server.serving.await.unwrap();
    assert!(client.answer().await.is_none());
}

#[tokio::test]
async fn a_caller_that_has_said_all_still_gets_its_answer() {
    let (router, begun, end) = held();
    let server = start(router).await;
    let mut client = server.connect().await;
    client.send(REQUEST).await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.0).await.unwrap();
    begun.notified().await;
    end.add_permits(1);
    assert_eq!(client.answer().await.unwrap().body, b"done");
}
