//! Many connections in one thread.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use anyhow::anyhow;
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::timeout_at;

use super::{ANSWER_TIMEOUT, Request, Tally, answer_in};

/// Sends `request` on so many connections until it is late, and waits for the last answers.
pub(super) fn keep_busy(
    address: SocketAddr,
    request: &Request,
    connections: usize,
    until: Instant,
) -> anyhow::Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tally = Rc::new(RefCell::new(Tally::new()?));
    let (bytes, expected): (Rc<[u8]>, _) = (request.bytes.as_slice().into(), request.expected);
    runtime.block_on(LocalSet::new().run_until(async {
        let connection = |_| {
            let (tally, bytes) = (Rc::clone(&tally), Rc::clone(&bytes));
            tokio::task::spawn_local(async move {
                let mut connection = Connection { address, stream: None, buffer: Vec::new() };
                while Instant::now() < until {
                    let sent = Instant::now();
                    let answer = timeout_at((sent + ANSWER_TIMEOUT).into(), connection.exchange(&bytes)).await;
                    let good = matches!(answer, Ok(Ok(status)) if status == expected);
                    tally.borrow_mut().note(sent.elapsed(), good)?;
                    if !matches!(answer, Ok(Ok(_))) {
                        connection.stream = None;
                        // A server that refuses connections is asked again, by the others first.
                        tokio::task::yield_now().await;
                    }
                }
                anyhow::Ok(())
            })
        };
        let tasks: Vec<_> = (0..connections).map(connection).collect();
        for task in tasks {
            task.await??;
        }
        anyhow::Ok(())
    }))?;
    let tally = Rc::into_inner(tally).ok_or_else(|| anyhow!("a connection is still open"))?;
    Ok(tally.into_inner())
}

struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    /// The status of the answer.
    async fn exchange(&mut self, request: &[u8]) -> io::Result<u16> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                none.insert(stream)
            }
        };
        let mut unsent = request;
        while !unsent.is_empty() {
            match stream.try_write(unsent) {
                Ok(count) => unsent = &unsent[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
                Err(error) => return Err(error),
            }
        }
        self.buffer.clear();
        loop {
            stream.readable().await?;
            let mut bytes = [0; 4_096];
            match stream.try_read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.buffer.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            if let Some((status, _)) = answer_in(&self.buffer)? {
                return Ok(status);
            }
        }
    }
}
