//! An HTTP/1.1 load generator for keep-alive connections.
//!
//! - [`closed_loop`] measures throughput: each connection sends its next request when the last one is answered. It says nothing
//!   about latency, because a stall also delays the requests that would have met it.
//! - [`open_loop`] measures latency: requests are due on a fixed schedule, and a latency counts from the moment its request was
//!   due. A stall shows in every request that it delays.
//!
//! Any answer but 201 ends the measurement with an error.

use std::cell::{Cell, RefCell};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream as AsyncStream;
use tokio::task::LocalSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Requests of [`open_loop`] that are due in the first second are not counted: connections are being opened.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long [`open_loop`] waits before its first request, so that all threads have started.
const HEAD_START: Duration = Duration::from_millis(50);

/// `POST path` with a JSON body, as sent.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    post_with(path, "", body)
}

/// As [`post`], with more header lines, each with its line end.
pub(crate) fn post_with(path: &str, headers: &str, body: &str) -> Vec<u8> {
    // The services refuse other host names on loopback.
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}");
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// `request` of [`post`] with an `Idempotency-Key`.
pub(crate) fn with_key(request: &[u8], key: &str) -> Vec<u8> {
    let line = request.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    [&request[..line], format!("Idempotency-Key: {key}\r\n").as_bytes(), &request[line..]].concat()
}

/// Where a service listens, and how it is spoken to.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// For HTTPS.
    pub(crate) tls: Option<TlsConnector>,
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Target { address, tls: None }
    }
}

impl From<&Target> for Target {
    fn from(target: &Target) -> Self {
        target.clone()
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

impl Target {
    async fn connect(&self) -> anyhow::Result<Box<dyn Duplex>> {
        let stream = AsyncStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some(tls) => Box::new(tls.connect(ServerName::try_from("localhost")?, stream).await?),
        })
    }
}

/// How long [`closed_loop`] sends requests.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// For this time.
    Elapsed(Duration),
    /// Until so many are answered.
    Answered(u64),
}

/// Answers that [`closed_loop`] received, and the seconds from the first request to the last answer.
pub(crate) struct Answers {
    pub(crate) count: u64,
    pub(crate) seconds: f64,
}

impl Answers {
    /// Answers a second.
    pub(crate) fn rate(&self) -> f64 {
        self.count as f64 / self.seconds
    }
}

/// Keeps `connections` busy from one thread, which leaves the other cores to the services. `make` returns the request with a
/// number, and `look` sees the body of each answer.
pub(crate) fn closed_loop(
    target: impl Into<Target>,
    connections: usize,
    until: Until,
    make: impl Fn(u64) -> Rc<[u8]> + 'static,
    look: impl Fn(&[u8]) + 'static,
) -> anyhow::Result<Answers> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shared = Rc::new((make, look, Cell::new(0), target.into()));
    let started = Instant::now();
    let connection = |_| {
        let shared = Rc::clone(&shared);
        tokio::task::spawn_local(async move {
            let (make, look, next, target) = &*shared;
            let mut stream = target.connect().await?;
            let mut buffer = Vec::new();
            loop {
                let number = next.get();
                let is_over = match until {
                    Until::Elapsed(time) => started.elapsed() >= time,
                    Until::Answered(count) => number >= count,
                };
                if is_over {
                    return anyhow::Ok(());
                }
                next.set(number + 1);
                let answer = timeout(ANSWER_TIMEOUT, exchange(&mut *stream, &make(number), &mut buffer)).await;
                look(created(answer.context("no answer in time")??, &buffer)?);
            }
        })
    };
    runtime.block_on(LocalSet::new().run_until(async {
        for task in (0..connections).map(connection).collect::<Vec<_>>() {
            task.await??;
        }
        anyhow::Ok(())
    }))?;
    Ok(Answers { count: shared.2.get(), seconds: started.elapsed().as_secs_f64() })
}

/// Sends one request. Returns the status, and where in `buffer` the body is.
async fn exchange(stream: &mut dyn Duplex, request: &[u8], buffer: &mut Vec<u8>) -> io::Result<(u16, Range<usize>)> {
    stream.write_all(request).await?;
    stream.flush().await?;
    buffer.clear();
    loop {
        let mut bytes = [0; 4_096];
        match stream.read(&mut bytes).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => buffer.extend_from_slice(&bytes[..count]),
        }
        if let Some(answer) = answer_in(buffer)? {
            return Ok(answer);
        }
    }
}

/// When requests of [`open_loop`] are due.
#[derive(Clone, Copy)]
pub(crate) struct Schedule {
    /// Requests a second.
    pub(crate) rate: u32,
    /// For so many seconds, of which the first one is not counted.
    pub(crate) seconds: u32,
    /// Each connection has a thread that blocks. There should be more than are ever busy at once.
    pub(crate) connections: usize,
}

impl Schedule {
    /// When the request with this number is due, and whether it is counted.
    pub(crate) fn due(self, start: Instant, number: u64) -> (Instant, bool) {
        let offset = Duration::from_nanos(number * 1_000_000_000 / u64::from(self.rate));
        (start + offset, offset >= WARM_UP)
    }

    /// How many requests there are.
    pub(crate) fn count(self) -> u64 {
        u64::from(self.rate) * u64::from(self.seconds)
    }
}

/// Sends the request that `make` returns for each number on `schedule`. `look` sees the number and the body of each counted
/// answer, on the thread that received it. Returns the latencies in microseconds.
pub(crate) fn open_loop<R: AsRef<[u8]>>(
    address: SocketAddr,
    schedule: Schedule,
    make: impl Fn(u64) -> R + Sync,
    look: impl Fn(u64, &[u8]) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<Histogram<u64>> {
    let (next, start) = (AtomicU64::new(0), Instant::now() + HEAD_START);
    let work = || {
        let (mut connection, mut latencies) = (Connection::open(address)?, new_histogram());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= schedule.count() {
                return anyhow::Ok(latencies);
            }
            let request = make(number);
            let (due, counts) = schedule.due(start, number);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let (status, body) = connection.exchange(request.as_ref())?;
            let latency = due.elapsed();
            ensure!(status == 201, "answered with {status}: {}", String::from_utf8_lossy(body));
            if counts {
                latencies.record(micros(latency))?;
                look(number, body)?;
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..schedule.connections).map(|_| scope.spawn(work)).collect();
        let mut all = new_histogram();
        for thread in threads {
            all.add(thread.join().map_err(|_| anyhow!("a thread of the load generator panicked"))??)?;
        }
        Ok(all)
    })
}

/// A connection that blocks.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Connection { stream, buffer: Vec::new() })
    }

    /// Sends one request. Returns status and body.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> io::Result<(u16, &[u8])> {
        self.stream.write_all(request)?;
        self.buffer.clear();
        loop {
            let mut bytes = [0; 4_096];
            match self.stream.read(&mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.buffer.extend_from_slice(&bytes[..count]),
            }
            if let Some((status, body)) = answer_in(&self.buffer)? {
                return Ok((status, &self.buffer[body]));
            }
        }
    }
}

fn created((status, body): (u16, Range<usize>), buffer: &[u8]) -> anyhow::Result<&[u8]> {
    let body = &buffer[body];
    if status != 201 {
        bail!("answered with {status}: {}", String::from_utf8_lossy(body));
    }
    Ok(body)
}

/// Status and position of the body once the whole answer is in `bytes`. Every answer of the services has a `Content-Length`.
fn answer_in(bytes: &[u8]) -> io::Result<Option<(u16, Range<usize>)>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidData);
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| io::ErrorKind::InvalidData)?;
    let status = head.split(' ').nth(1).unwrap_or_default().parse().map_err(invalid)?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    });
    let length: usize = length.unwrap_or_default().trim().parse().map_err(invalid)?;
    let body = end + 4..end + 4 + length;
    Ok((bytes.len() >= body.end).then_some((status, body)))
}

/// The `id` in the JSON of a new account or card, which comes first. Parsing all of the JSON would cost the generator as much as
/// sending the request.
pub(crate) fn id_in(body: &[u8]) -> anyhow::Result<&str> {
    let text = std::str::from_utf8(body)?;
    text.split_once(r#""id":""#).and_then(|(_, rest)| rest.get(..36)).with_context(|| format!("no id in {text}"))
}

/// Counts microseconds.
pub(crate) fn new_histogram() -> Histogram<u64> {
    Histogram::new(3).unwrap_or_else(|error| unreachable!("three significant digits are allowed: {error}"))
}

/// In whole microseconds, as histograms count.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Half of a rate, with two significant digits.
pub(crate) fn half_of(rate: f64) -> u32 {
    let half = (rate / 2.0) as u32;
    half - half % 10_u32.pow(half.max(10).ilog10() - 1)
}

/// A quantile of microseconds, in milliseconds.
pub(crate) fn milliseconds(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1_000.0
}

/// Collects what [`closed_loop`] sees: it runs on one thread.
pub(crate) type Collected<T> = Rc<RefCell<Vec<T>>>;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    /// A server that asks `status` what to answer. It stays until the process ends.
    fn serve(status: impl Fn() -> u16 + Send + Sync + 'static) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let status = std::sync::Arc::new(status);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let status = std::sync::Arc::clone(&status);
                std::thread::spawn(move || {
                    let mut bytes = [0; 4_096];
                    // The requests here are small enough to come in one piece.
                    while stream.read(&mut bytes).is_ok_and(|count| count > 0) {
                        let answer = format!("HTTP/1.1 {} X\r\nContent-Length: 2\r\n\r\n{{}}", status());
                        if stream.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    #[test]
    fn a_stall_of_200_ms_every_2_s_shows_in_the_open_loop() {
        let started = Instant::now();
        let address = serve(move || {
            let (elapsed, period) = (started.elapsed(), Duration::from_secs(2));
            let into = Duration::from_nanos((elapsed.as_nanos() % period.as_nanos()) as u64);
            std::thread::sleep(Duration::from_millis(200).saturating_sub(into));
            201
        });
        let schedule = Schedule { rate: 200, seconds: 5, connections: 8 };
        let latencies = open_loop(address, schedule, |_| post("/", "{}"), |_, _| Ok(())).unwrap();
        assert_eq!(latencies.len(), 800);
        let p99 = latencies.value_at_quantile(0.99);
        assert!(p99 >= 150_000, "a tenth of the requests were due during a stall, and p99 is {p99} µs");
    }

    #[test]
    fn the_closed_loop_counts_answers_and_stops_at_an_error() {
        let request: Rc<[u8]> = post("/", "{}").into();
        let run = |address, until, request| closed_loop(address, 4, until, move |_| Rc::clone(&request), |_| ());
        let all = run(serve(|| 201), Until::Answered(100), Rc::clone(&request)).unwrap();
        assert_eq!(all.count, 100);
        let half = Until::Elapsed(Duration::from_millis(50));
        assert!(run(serve(|| 201), half, Rc::clone(&request)).unwrap().count > 0);
        assert!(run(serve(|| 503), half, request).is_err());
    }

    #[test]
    fn half_of_a_rate_has_two_digits() {
        assert_eq!([3.9, 66.0, 2_469.0, 67_999.0].map(half_of), [1, 33, 1_200, 33_000]);
    }

    #[test]
    fn an_answer_is_whole_or_waited_for() {
        let whole = b"HTTP/1.1 201 Created\r\nContent-Type: x\r\ncontent-LENGTH: 2\r\n\r\n{}";
        for length in 0..whole.len() {
            assert_eq!(answer_in(&whole[..length]).unwrap(), None);
        }
        let (status, body) = answer_in(whole).unwrap().unwrap();
        assert_eq!((status, &whole[body]), (201, b"{}".as_slice()));
        assert!(answer_in(b"what\r\n\r\n").is_err());
    }
}
