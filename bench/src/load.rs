//! Load over HTTP from few threads, so that it takes little of the machine that it measures.
//!
//! [`closed_loop`] has each connection send its next request when it has the last one's answer: it finds what a service
//! can do at most, and says nothing of latency, since a stall holds up the very requests that would have met it.
//! [`open_loop`] sends on a fixed schedule, and counts from when a request was due: a stall shows in all that it delays.

use std::borrow::Borrow;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use hdrhistogram::Histogram;

use crate::machine::thread_time;

mod connections;

/// How long an answer may take before the request counts as an error.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the open loop waits before its first request, so that all its threads are there.
const HEAD_START: Duration = Duration::from_millis(50);

/// A request as it is sent, again and again, and the status of a good answer.
pub(crate) struct Request {
    bytes: Vec<u8>,
    expected: u16,
}

impl Request {
    /// `GET path`, to be answered with 200.
    pub(crate) fn get(path: &str) -> Self {
        Request { bytes: format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").into_bytes(), expected: 200 }
    }

    /// `POST path` with a JSON body, to be answered with 201.
    pub(crate) fn post(path: &str, body: &str) -> Self {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n");
        Request { bytes: format!("{head}Content-Length: {length}\r\n\r\n{body}").into_bytes(), expected: 201 }
    }
}

/// What became of the requests.
pub(crate) struct Tally {
    /// How long good answers took, in microseconds.
    pub(crate) latencies: Histogram<u64>,
    /// Requests that had another answer, or none.
    pub(crate) errors: u64,
    /// From the first request to the last answer.
    pub(crate) seconds: f64,
    /// What the threads of the load used, all together.
    pub(crate) processor_time: Duration,
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        Ok(Tally { latencies: Histogram::new(3)?, errors: 0, seconds: 0.0, processor_time: Duration::ZERO })
    }

    /// Good answers a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }

    /// What is left for each request of processor time that all of them took, in microseconds.
    pub(crate) fn micros_a_request(&self, used: Duration) -> f64 {
        used.as_secs_f64() * 1_000_000.0 / (self.latencies.len() + self.errors) as f64
    }

    fn note(&mut self, took: Duration, good: bool) -> anyhow::Result<()> {
        match good {
            true => self.latencies.record(micros(took))?,
            false => self.errors += 1,
        }
        Ok(())
    }

    fn add(&mut self, other: &Tally) -> anyhow::Result<()> {
        self.latencies.add(&other.latencies)?;
        self.errors += other.errors;
        self.processor_time += other.processor_time;
        Ok(())
    }
}

/// How many connections are kept busy, and for how long.
#[derive(Clone, Copy)]
pub(crate) struct Busy {
    pub(crate) connections: usize,
    /// Threads that share them. One needs some 10 µs of its core for a request, as the tables tell.
    pub(crate) threads: usize,
    pub(crate) lasting: Duration,
}

/// Keeps connections busy.
pub(crate) fn closed_loop(address: SocketAddr, request: &Request, busy: Busy) -> anyhow::Result<Tally> {
    let Busy { connections, threads, lasting } = busy;
    let started = Instant::now();
    let until = started + lasting;
    let share = |thread| connections / threads + usize::from(thread < connections % threads);
    let mut tally = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(timed(move || connections::keep_busy(address, request, share(thread), until))))
            .collect();
        joined(threads)
    })?;
    tally.seconds = started.elapsed().as_secs_f64();
    Ok(tally)
}

/// When requests are due.
#[derive(Clone, Copy)]
pub(crate) struct Schedule {
    /// Requests a second.
    pub(crate) rate: u32,
    /// For so long.
    pub(crate) seconds: u32,
    /// Connections that send them, each by a thread that may wait: more than are ever busy at once, stalls aside.
    pub(crate) connections: usize,
}

/// A good answer of the open loop's.
pub(crate) struct Answered<'a> {
    /// When the request was due.
    pub(crate) due: Instant,
    /// When the answer was there.
    pub(crate) answered: Instant,
    /// Its body.
    pub(crate) body: &'a [u8],
}

/// Sends `request` on `schedule`, and shows each good answer to `look`.
pub(crate) fn open_loop(
    address: SocketAddr,
    request: &Request,
    schedule: Schedule,
    look: impl Fn(&Answered<'_>) + Sync,
) -> anyhow::Result<Tally> {
    open_loop_of(address, |_| request, schedule, look)
}

/// As [`open_loop`], with the request that `make` has for each number.
pub(crate) fn open_loop_of<R: Borrow<Request>>(
    address: SocketAddr,
    make: impl Fn(u32) -> R + Sync,
    schedule: Schedule,
    look: impl Fn(&Answered<'_>) + Sync,
) -> anyhow::Result<Tally> {
    let next = AtomicU32::new(0);
    let start = Instant::now() + HEAD_START;
    let send_what_is_due = || -> anyhow::Result<Tally> {
        let mut tally = Tally::new()?;
        let mut connection = None;
        let mut buffer = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= schedule.rate * schedule.seconds {
                return Ok(tally);
            }
            let request = make(number);
            let request = request.borrow();
            let due = start + Duration::from_secs(1) * number / schedule.rate;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let answer = exchange(&mut connection, address, &request.bytes, &mut buffer);
            let answered = Instant::now();
            let good = answer.ok().filter(|(status, _)| *status == request.expected);
            tally.note(answered - due, good.is_some())?;
            if let Some((_, body)) = good {
                look(&Answered { due, answered, body: &buffer[body] });
            }
        }
    };
    let mut tally = std::thread::scope(|scope| {
        joined((0..schedule.connections).map(|_| scope.spawn(timed(&send_what_is_due))).collect::<Vec<_>>())
    })?;
    tally.seconds = start.elapsed().as_secs_f64();
    Ok(tally)
}

/// `work` as all that a thread does, with the processor time that it took.
fn timed(work: impl Fn() -> anyhow::Result<Tally>) -> impl Fn() -> anyhow::Result<Tally> {
    move || {
        let mut tally = work()?;
        tally.processor_time = thread_time()?;
        Ok(tally)
    }
}

fn joined(threads: Vec<ScopedJoinHandle<'_, anyhow::Result<Tally>>>) -> anyhow::Result<Tally> {
    let mut all = Tally::new()?;
    for thread in threads {
        all.add(&thread.join().map_err(|_| anyhow!("a thread of the load panicked"))??)?;
    }
    Ok(all)
}

/// One request on the connection, which is made where there is none, and given up after an error. Gives the status, and where in
/// `buffer` the body is.
fn exchange(
    connection: &mut Option<TcpStream>,
    address: SocketAddr,
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> io::Result<(u16, Range<usize>)> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            stream
        }
    };
    stream.write_all(request)?;
    buffer.clear();
    loop {
        let mut bytes = [0; 4_096];
        match stream.read(&mut bytes)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => buffer.extend_from_slice(&bytes[..count]),
        }
        if let Some(answer) = answer_in(buffer)? {
            *connection = Some(stream);
            return Ok(answer);
        }
    }
}

/// Status and place of the body, if the whole answer is there. Every answer of the services has a `content-length`.
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

/// In whole microseconds, as histograms count.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
