//! What a handler learns of the peer of a request with a `Prefer` header.

mod harness;

use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use axum::{Extension, Router};
use harness::{Server, start};
use http_server::Peer;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;
use tokio::time::timeout;

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: localhost\r\nprefer: wait=1\r\n\r\n";

/// A handler that answers `gone` when its peer is, or `there` when the test says so. The server, its start, and its end.
async fn server() -> (Server, Arc<Notify>, Arc<Notify>) {
    let (begun, end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (handler_begun, handler_end) = (begun.clone(), end.clone());
    let handler = async move |Extension(peer): Extension<Peer>| {
        handler_begun.notify_one();
        tokio::select! {
            () = peer.closed() => "gone",
            () = handler_end.notified() => "there",
        }
    };
    (start(Router::new().route("/", get(handler))).await, begun, end)
}

#[tokio::test]
async fn a_peer_that_closes_its_sending_side_is_gone_and_still_gets_its_answer() {
    let (server, begun, _end) = server().await;
    let mut client = server.connect().await;
    client.send(REQUEST).await;
    begun.notified().await;
    client.0.shutdown().await.unwrap();
    assert_eq!(client.answer().await.unwrap().body, b"gone");
    assert!(client.answer().await.is_none());
}

#[tokio::test]
async fn a_peer_that_waits_or_has_sent_more_is_there_and_its_connection_stays_open() {
    let (server, begun, end) = server().await;
    let mut client = server.connect().await;
    for more in ["", REQUEST] {
        client.send(REQUEST).await;
        begun.notified().await;
        client.send(more).await;
        let early = timeout(Duration::from_millis(50), client.answer()).await;
        assert!(early.is_err(), "{early:?}");
        end.notify_one();
        assert_eq!(client.answer().await.unwrap().body, b"there");
    }
    begun.notified().await;
    end.notify_one();
    assert_eq!(client.answer().await.unwrap().body, b"there");
}

#[tokio::test]
async fn only_a_request_with_preferences_has_a_peer() {
    let (server, ..) = server().await;
    assert_eq!(server.get("/").await.status, 500);
}
