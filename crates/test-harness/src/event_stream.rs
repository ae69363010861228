//! A client of `GET /events` that reads one block at a time.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use crate::{DEADLINE, Http};
use serde_json::Value;

/// An open stream.
pub struct EventStream(BufReader<TcpStream>);

/// A block of a stream.
#[derive(Debug, Default)]
pub struct EventBlock {
    /// The position after the block, for `Last-Event-ID`.
    pub id: String,
    /// Empty for an account event.
    pub name: String,
    /// `None` for a comment.
    pub data: Option<Value>,
}

impl EventStream {
    /// `GET path`; `None` if it is not answered 200.
    pub fn try_open(service: &Http, path: &str, last_event_id: Option<&str>) -> Option<Self> {
        let last = last_event_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        Self::try_open_with(service, path, &last)
    }

    /// `GET path` with the credentials `token`, answered 200.
    #[track_caller]
    pub fn open_as(service: &Http, path: &str, token: &str) -> Self {
        Self::try_open_with(service, path, &format!("Authorization: Bearer {token}\r\n")).expect("a stream")
    }

    fn try_open_with(service: &Http, path: &str, header: &str) -> Option<Self> {
        let connection = TcpStream::connect(service.address()).expect("a connection");
        connection.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        // Without chunks: a response to HTTP/1.0 ends with its connection.
        let caller = service.authorization().map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
        write!(&connection, "GET {path} HTTP/1.0\r\n{header}{caller}\r\n").expect("a request");
        let mut stream = EventStream(BufReader::new(connection));
        let head: Vec<_> = std::iter::from_fn(|| stream.line().filter(|line| !line.is_empty())).collect();
        let is_stream = head.iter().any(|line| line.eq_ignore_ascii_case("content-type: text/event-stream"));
        head[0].ends_with("200 OK").then(|| {
            assert!(is_stream, "{head:?}");
            stream
        })
    }

    /// `GET path`, answered 200.
    #[track_caller]
    pub fn open(service: &Http, path: &str, last_event_id: Option<&str>) -> Self {
        Self::try_open(service, path, last_event_id).expect("a stream")
    }

    /// The next block; `None` at the end of the stream.
    pub fn block(&mut self) -> Option<EventBlock> {
        let mut block = EventBlock::default();
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                None => return Some(block),
                Some(("id", id)) => block.id = id.to_owned(),
                Some(("event", name)) => block.name = name.to_owned(),
                Some(("data", data)) => block.data = Some(serde_json::from_str(data).expect("JSON")),
                Some((name, _)) => assert_eq!(name, "", "a comment"),
            }
        }
    }

    /// The next block that is no comment.
    pub fn event(&mut self) -> EventBlock {
        loop {
            let block = self.block().expect("an event, not the end");
            if block.data.is_some() {
                return block;
            }
        }
    }

    /// The account and version of the next `count` events.
    pub fn events(&mut self, count: usize) -> Vec<(String, u64)> {
        let event = |block: EventBlock| {
            let data = block.data.expect("data");
            assert_eq!(block.name, "", "{data}");
            (data["account_id"].as_str().expect("an id").to_owned(), data["version"].as_u64().expect("a version"))
        };
        (0..count).map(|_| event(self.event())).collect()
    }

    /// The next comment.
    pub fn comment(&mut self) -> EventBlock {
        loop {
            let block = self.block().expect("a comment, not the end");
            if block.data.is_none() {
                return block;
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        Some(line.trim_end().to_owned())
    }
}
