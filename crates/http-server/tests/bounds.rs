//! The server's bounds: slow clients, the connection cap, the drain.

mod harness;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use harness::{Client, start, start_within};
use http_server::{HEADER_READ_TIMEOUT, IDLE_TIMEOUT, SPARE_CONNECTIONS, ServeSettings};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

/// A handler that reports its start, and ends when the test permits it.
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

// A paused clock advances to the next timer as soon as all tasks wait.
#[tokio::test(start_paused = true)]
async fn a_head_that_is_not_complete_in_time_is_408() {
    let server = start(hello()).await;
    let mut client = server.connect().await;
    for requests_before in [0, 1] {
        for _ in 0..requests_before {
            client = server.connect().await;
            client.send(REQUEST).await;
            assert_eq!(client.answer().await.unwrap().status, 200);
        }
        // The idle time before the head does not count.
        tokio::time::sleep(IDLE_TIMEOUT - Duration::from_secs(1)).await;
        let begun = tokio::time::Instant::now();
        client.send("GET / HTTP/1.1\r\nhos").await;
        tokio::time::sleep(HEADER_READ_TIMEOUT / 2).await;
        client.send("t").await;
        let answer = client.answer().await.unwrap();
        answer.is_error(408, "request_timeout");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(client.answer().await.is_none());
        assert!((HEADER_READ_TIMEOUT..IDLE_TIMEOUT).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_outlives_a_proxys_and_is_closed_without_an_answer() {
    let server = start(hello()).await;
    for requests_before in [0, 1, 2] {
        let mut client = server.connect().await;
        for _ in 0..requests_before {
            tokio::time::sleep(Duration::from_secs(60)).await;
            client.send(REQUEST).await;
            assert_eq!(client.answer().await.unwrap().body, b"hello");
        }
        let idle_since = tokio::time::Instant::now();
        assert!(client.answer().await.is_none());
        assert!(idle_since.elapsed() >= IDLE_TIMEOUT, "{:?}", idle_since.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut_off() {
    let router = hello().route("/much", get(async || vec![b'x'; 64 * 1024 * 1024]));
    let server = start_within(router, ServeSettings { max_connections: 1, ..Default::default() }).await;
    let mut deaf = server.connect().await;
    deaf.send("GET /much HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    // The client reads the beginning only.
    tokio::io::AsyncReadExt::read_u8(&mut deaf.0).await.unwrap();
    server.get("/").await.is_error(503, "overloaded");
    let cut_off = async {
        while server.get("/").await.status == 503 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), cut_off).await.unwrap();
}

/// A server with a pending request on each of its connections.
async fn full(places: usize) -> (harness::Server, Vec<Client>, Arc<Semaphore>) {
    let (router, begun, end) = held();
    let router = router.route("/health", get(async || "healthy")).route("/livez", get(async || "alive"));
    let server = start_within(router, ServeSettings { max_connections: places, ..Default::default() }).await;
    let mut clients = Vec::new();
    for _ in 0..places {
        let mut client = server.connect().await;
        client.send(REQUEST).await;
        begun.notified().await;
        clients.push(client);
    }
    (server, clients, end)
}

#[tokio::test]
async fn health_is_answered_when_every_place_is_taken_and_the_rest_is_503() {
    let (server, mut clients, end) = full(1).await;
    for _ in 0..2 * SPARE_CONNECTIONS {
        let answer = server.get("/health").await;
        assert_eq!((&*answer.body, answer.header("connection")), (&b"healthy"[..], Some("close")));
        let answer = server.get("/").await;
        answer.is_error(503, "overloaded");
        assert_eq!((answer.header("connection"), answer.header("retry-after")), (Some("close"), Some("1")));
    }
    // Silent connections beyond the limit do not keep probes away.
    let mut silent = Vec::new();
    for _ in 0..3 * SPARE_CONNECTIONS {
        silent.push(server.connect().await);
    }
    assert_eq!(server.get("/livez").await.body, b"alive");
    end.add_permits(1);
    assert_eq!(clients[0].answer().await.unwrap().body, b"done");
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_without_a_place_is_closed_soon() {
    let (server, _clients, _end) = full(1).await;
    let mut silent = server.connect().await;
    let begun = tokio::time::Instant::now();
    assert!(silent.answer().await.is_none());
    assert!(begun.elapsed() < HEADER_READ_TIMEOUT, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_connection_that_is_idle_the_longest_makes_room_for_a_new_one() {
    let server = start_within(hello(), ServeSettings { max_connections: 2, ..Default::default() }).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = server.connect().await;
        client.send(REQUEST).await;
        assert_eq!(client.answer().await.unwrap().body, b"hello");
        clients.push(client);
    }
    assert!(clients[0].answer().await.is_none(), "the oldest is closed");
    clients[2].send(REQUEST).await;
    assert_eq!(clients[2].answer().await.unwrap().body, b"hello");
}

#[tokio::test]
async fn one_client_cannot_take_every_place() {
    let (router, begun, end) = held();
    let server = start_within(router, ServeSettings { max_connections: 4, ..Default::default() }).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = server.connect().await;
        client.send(REQUEST).await;
        begun.notified().await;
        clients.push(client);
    }
    server.get("/").await.is_error(503, "overloaded");
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = Client(tokio::io::BufReader::new(socket.connect(server.address).await.unwrap()));
    other.send(REQUEST).await;
    begun.notified().await;
    end.add_permits(4);
    assert_eq!(other.answer().await.unwrap().body, b"done");
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
    assert!(idle.answer().await.is_none(), "an idle connection is closed");
    end.add_permits(1);
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.body.as_slice(), answer.header("connection")), (&b"done"[..], Some("close")));
    server.serving.await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "the listener is closed");
}

// The runtime has one thread, so the server does nothing before the test waits.
#[tokio::test]
async fn a_request_on_the_wire_is_answered_when_the_server_stops() {
    let server = start(hello()).await;
    let mut idle = server.connect().await;
    idle.send(REQUEST).await;
    assert_eq!(idle.answer().await.unwrap().header("connection"), None);
    server.shutdown.cancel();
    let idle_stream = idle.0.get_mut();
    assert_eq!(idle_stream.try_write(REQUEST.as_bytes()).unwrap(), REQUEST.len());
    let backlog = std::net::TcpStream::connect(server.address).unwrap();
    std::io::Write::write_all(&mut &backlog, REQUEST.as_bytes()).unwrap();
    backlog.set_nonblocking(true).unwrap();
    let mut backlog = Client(tokio::io::BufReader::new(TcpStream::from_std(backlog).unwrap()));
    for client in [&mut idle, &mut backlog] {
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.body.as_slice(), answer.header("connection")), (&b"hello"[..], Some("close")));
        assert!(client.answer().await.is_none());
    }
    server.serving.await.unwrap();
}

#[tokio::test]
async fn the_drain_comes_to_an_end() {
    let (router, begun, _end) = held();
    let settings = ServeSettings { drain_timeout: Duration::from_millis(1), ..Default::default() };
    let server = start_within(router, settings).await;
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
