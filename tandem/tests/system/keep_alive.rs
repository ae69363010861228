//! One HTTP connection by hand: cheaper than a client where there are many requests, and it can stop in the middle of one.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use test_harness::DEADLINE;

/// A connection in plain text, or in TLS.
pub(crate) struct KeepAlive<S = TcpStream>(BufReader<S>);

impl KeepAlive {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(KeepAlive(BufReader::new(stream)))
    }
}

impl<S: Read + Write> KeepAlive<S> {
    pub(crate) fn over(stream: S) -> Self {
        KeepAlive(BufReader::new(stream))
    }

    /// `POST path` with a JSON body: status and body of the answer.
    pub(crate) fn post(&mut self, path: &str, body: &str) -> io::Result<(u16, String)> {
        self.send(format!("{}{body}", head(path, body.len(), "")))?;
        self.answer()
    }

    /// `GET path`: status and body of the answer.
    pub(crate) fn get(&mut self, path: &str) -> io::Result<(u16, String)> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))?;
        self.answer()
    }

    /// Begins `POST path` with a body of `length` bytes, and comes back when the server waits for the body.
    pub(crate) fn begin_post(&mut self, path: &str, length: usize) -> io::Result<()> {
        self.send(head(path, length, "Expect: 100-continue\r\n"))?;
        let (status, _) = self.head()?;
        assert_eq!(status, 100, "the server reads the body");
        Ok(())
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.get_mut().write_all(bytes.as_ref())
    }

    pub(crate) fn answer(&mut self) -> io::Result<(u16, String)> {
        let (status, length) = self.head()?;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Status and length of the body.
    fn head(&mut self) -> io::Result<(u16, usize)> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let header = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then_some(value)
        });
        let length = header.and_then(|value| value.trim().parse().ok()).unwrap_or(0);
        Ok((status.ok_or(io::ErrorKind::InvalidData)?, length))
    }
}

fn head(path: &str, length: usize, more: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n"
    )
}
