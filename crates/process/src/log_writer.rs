//! A bounded queue of log lines, and the thread that writes them to stderr.
//!
//! Invariant: a thread that logs never waits for stderr. A pipe without a reader or a stopped terminal blocks the writer
//! thread only. Lines that do not fit into the queue are dropped and counted, and the count is logged once stderr takes
//! lines again.
//!
//! `tracing-appender` bounds its queue by lines instead of bytes, does not report what it dropped, and may block on stdout at
//! the end.

use std::io::{self, ErrorKind, Write, stderr};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// The capacity of the queue in bytes: several thousand lines, enough while a log collector restarts.
const MAX_QUEUED_BYTES: usize = 1 << 20;

/// How long the exit waits for stderr: enough to write a full queue, and much less than an orchestrator's grace period.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// The pause before the next write if stderr is full and in non-blocking mode, which a process that shares it may set.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// The writer thread's name.
const THREAD_NAME: &str = "log-writer";

static STDERR: LogQueue = LogQueue::new();

/// Starts the thread that writes queued lines to stderr. Called once.
pub(crate) fn start() -> io::Result<()> {
    let writer = thread::Builder::new().name(THREAD_NAME.to_owned());
    writer.spawn(|| STDERR.write_to(&mut stderr())).map(drop)
}

/// Queues the last line of the process, even if the queue is full.
pub(crate) fn write_last(line: &str) {
    STDERR.push(line.as_bytes(), true);
}

/// Waits until all lines are written, for [`FLUSH_TIMEOUT`] at most.
pub(crate) fn flush() {
    STDERR.flush(FLUSH_TIMEOUT);
}

/// The writer for `tracing-subscriber`, which writes each line in one call.
pub(crate) struct LogLine;

impl Write for LogLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // The writer thread logs only the number of dropped lines, which must not be dropped.
        STDERR.push(line, thread::current().name() == Some(THREAD_NAME));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct LogQueue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Whole lines.
    lines: Vec<u8>,
    /// The number of dropped lines that is not logged yet.
    dropped: u64,
    /// Whether the writer thread has lines that are not written yet.
    is_writing: bool,
}

impl LogQueue {
    const fn new() -> Self {
        let state = State { lines: Vec::new(), dropped: 0, is_writing: false };
        LogQueue { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn push(&self, line: &[u8], must_fit: bool) {
        let mut state = self.state.lock();
        if !must_fit && state.lines.len() + line.len() > MAX_QUEUED_BYTES {
            state.dropped += 1;
            return;
        }
        state.lines.extend_from_slice(line);
        drop(state);
        self.changed.notify_all();
    }

    fn flush(&self, timeout: Duration) {
        let is_unwritten = |state: &mut State| state.is_writing || !state.lines.is_empty();
        self.changed.wait_while_for(&mut self.state.lock(), is_unwritten, timeout);
    }

    /// Waits for lines and takes all of them.
    fn take(&self) -> Vec<u8> {
        let mut state = self.state.lock();
        state.is_writing = false;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.lines.is_empty());
        state.is_writing = true;
        std::mem::take(&mut state.lines)
    }

    fn write_to(&self, output: &mut impl Write) -> ! {
        loop {
            let lines = self.take();
            // One write per line, so that lines of processes that share a pipe do not mix.
            let written = lines.split_inclusive(|byte| *byte == b'\n').map(|line| write_line(output, line));
            let failed = written.filter(Result::is_err).count();
            let dropped = {
                let mut state = self.state.lock();
                state.dropped += failed as u64;
                // While writes fail, for example on a full disk, the report would fail too.
                if failed == 0 { std::mem::take(&mut state.dropped) } else { 0 }
            };
            if dropped > 0 {
                tracing::warn!(lines = dropped, "dropped log lines that stderr did not take in time");
            }
        }
    }
}

fn write_line(output: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match output.write(line) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => line = &line[length..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::park_timeout(RETRY_PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// Long enough for anything on a busy machine.
    const DEADLINE: Duration = Duration::from_secs(30);

    /// An output that takes each write only when the test receives it.
    struct Rendezvous(SyncSender<Vec<u8>>);

    impl Write for Rendezvous {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start() -> (&'static LogQueue, Receiver<Vec<u8>>) {
        let queue: &LogQueue = Box::leak(Box::new(LogQueue::new()));
        let (sender, receiver) = sync_channel(0);
        thread::spawn(|| queue.write_to(&mut Rendezvous(sender)));
        (queue, receiver)
    }

    #[test]
    fn a_full_queue_drops_ordinary_lines_and_keeps_the_last_one() {
        let queue = LogQueue::new();
        let line = [b'x'; 1 << 10];
        for _ in 0..MAX_QUEUED_BYTES / line.len() + 7 {
            queue.push(&line, false);
        }
        queue.push(b"last\n", true);
        let state = queue.state.lock();
        assert_eq!((state.dropped, state.lines.len()), (7, MAX_QUEUED_BYTES + 5));
    }

    #[test]
    fn lines_are_written_one_by_one_in_their_order_and_flush_waits_for_them() {
        let (queue, output) = start();
        for line in ["one\n", "two\n", "three\n"] {
            queue.push(line.as_bytes(), false);
        }
        let reader = thread::spawn(move || [(); 3].map(|()| output.recv_timeout(DEADLINE).unwrap()));
        queue.flush(DEADLINE);
        let state = queue.state.lock();
        assert!(state.lines.is_empty() && !state.is_writing);
        assert_eq!(reader.join().unwrap(), [b"one\n".to_vec(), b"two\n".to_vec(), b"three\n".to_vec()]);
    }

    #[test]
    fn flush_gives_up_on_an_output_that_takes_nothing() {
        let (queue, _output) = start();
        queue.push(b"stuck\n", false);
        queue.flush(Duration::from_millis(1));
        assert!(queue.state.lock().is_writing || !queue.state.lock().lines.is_empty());
    }

    #[test]
    fn lines_that_an_output_refuses_are_counted_until_it_takes_one() {
        let (queue, output) = start();
        drop(output);
        queue.push(b"one\ntwo\n", false);
        queue.flush(DEADLINE);
        assert_eq!(queue.state.lock().dropped, 2);
    }

    #[test]
    fn a_line_that_is_taken_in_parts_is_written_whole() {
        struct Grudging(Vec<u8>, u32);
        impl Write for Grudging {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                match self.1 % 3 {
                    1 => Err(ErrorKind::WouldBlock.into()),
                    2 => Err(ErrorKind::Interrupted.into()),
                    _ => self.0.write(&bytes[..1]),
                }
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut output = Grudging(Vec::new(), 0);
        write_line(&mut output, b"line\n").unwrap();
        assert_eq!(output.0, b"line\n");
    }
}
