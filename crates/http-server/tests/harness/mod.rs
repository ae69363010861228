//! A server on port 0, and a client that writes raw bytes, so that tests can send invalid requests.

#![expect(dead_code, reason = "each test file uses a part of it")]
#![expect(clippy::unwrap_used, reason = "clippy sees no test in a helper")]

use std::net::SocketAddr;

use http_server::{HttpConfig, Routes, ServeSettings, finish, serve};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
}

pub(crate) async fn start(routes: impl Into<Routes>) -> Server {
    start_with(routes, HttpConfig::default()).await
}

pub(crate) async fn start_within(routes: impl Into<Routes>, limits: ServeSettings) -> Server {
    start_with(routes, HttpConfig { limits, ..Default::default() }).await
}

pub(crate) async fn start_with(routes: impl Into<Routes>, config: HttpConfig) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let app = finish(routes, "test-service", &config, address.ip());
    let serving = tokio::spawn(serve(listener, app, config.limits, shutdown.clone()));
    Server { address, shutdown, serving }
}

impl Server {
    pub(crate) async fn connect(&self) -> Client {
        Client(BufReader::new(TcpStream::connect(self.address).await.unwrap()))
    }

    /// Sends `head` and `body` on a new connection; the length is added.
    pub(crate) async fn ask(&self, head: &str, body: impl AsRef<[u8]>) -> Answer {
        let body = body.as_ref();
        let mut client = self.connect().await;
        client.send(format!("{head}\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len())).await;
        client.send(body).await;
        client.answer_to(head).await.unwrap()
    }

    /// Sends `bytes` as they stand on a new connection.
    pub(crate) async fn send(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client.answer().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1"), "").await
    }
}

pub(crate) struct Client<S = TcpStream>(pub(crate) BufReader<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Says that no more bytes follow.
    pub(crate) async fn finish(&mut self) {
        // The server may have closed the connection.
        let _ = self.0.shutdown().await;
    }

    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        self.answer_to("").await
    }

    /// The next answer; `None` if the server closes without one.
    async fn answer_to(&mut self, request: &str) -> Option<Answer> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match self.0.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => {
                    assert!(head.is_empty(), "broke off in {}", String::from_utf8_lossy(&head));
                    return None;
                }
            }
        }
        let head = String::from_utf8(head).unwrap();
        let (first, rest) = head.split_once("\r\n").unwrap();
        let headers = rest.lines().filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        let status = first.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, headers, body: Vec::new() };
        if !request.starts_with("HEAD") {
            let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
            answer.body.resize(length, 0);
            self.0.read_exact(&mut answer.body).await.unwrap();
        }
        Some(answer)
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks that this is an error in the standard form.
    #[track_caller]
    pub(crate) fn is_error(&self, status: u16, code: &str) -> &Self {
        let json = self.json();
        assert_eq!((self.status, json["code"].as_str()), (status, Some(code)), "{json}");
        assert!(!json["error"].as_str().unwrap().is_empty());
        assert!(self.header("x-request-id").is_some());
        self
    }

    #[track_caller]
    pub(crate) fn has_text(&self, text: &str) -> &Self {
        assert_eq!(self.json()["error"], text);
        self
    }
}
