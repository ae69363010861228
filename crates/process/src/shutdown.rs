//! Stopping when asked to: SIGTERM (an orchestrator) and SIGINT (Ctrl-C).

use std::io::{self, Write as _};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A token that the first SIGTERM or SIGINT cancels. A second one ends the process at once, with 143 or 130.
///
/// To be called inside a Tokio runtime, once. Fails only if the system refuses the signal handlers.
pub fn shutdown_on_signals() -> io::Result<CancellationToken> {
    let mut signals = Signals { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? };
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let (name, _) = signals.next().await;
        info!(signal = name, "stopping; a second signal stops at once");
        cancelled.cancel();
        let (name, status) = signals.next().await;
        warn!(signal = name, "stopping at once");
        exit_at_once(status);
    });
    Ok(token)
}

/// Ends the process, and nothing before it: the threads that are not waited for would crash in what C libraries take down at
/// `exit`, as one that was shaking hands in OpenSSL did.
#[expect(unsafe_code, reason = "the standard library has no exit that leaves other threads alone")]
pub(crate) fn exit_at_once(status: i32) -> ! {
    // Nobody may be there to read it.
    let _ = io::stdout().flush();
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(status) }
}

struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// The next signal's name, and the exit status that by custom tells of it: 128 and its number.
    async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.term.recv() => ("SIGTERM", 143),
            _ = self.int.recv() => ("SIGINT", 130),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    /// Not a test but the process that the test below sends signals to.
    #[tokio::test]
    #[ignore = "runs until it is stopped"]
    async fn child() {
        let token = shutdown_on_signals().unwrap();
        println!("\nready");
        token.cancelled().await;
        println!("stopping");
        std::future::pending().await
    }

    #[test]
    fn the_first_signal_cancels_and_the_second_exits() {
        for (signal, status) in [("TERM", 143), ("INT", 130)] {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "shutdown::tests::child", "--ignored", "--nocapture"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
            for said in ["ready", "stopping"] {
                assert!(lines.any(|line| line == said));
                let kill = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
                assert!(kill.unwrap().success());
            }
            assert_eq!(child.wait().unwrap().code(), Some(status));
        }
    }
}
