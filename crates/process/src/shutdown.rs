//! Graceful shutdown on SIGTERM (an orchestrator), SIGINT (Ctrl-C) and SIGHUP (the terminal is closed).

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::log_writer;

/// Returns a token that the first SIGTERM, SIGINT or SIGHUP cancels. A second signal ends the process with status 143, 130 or
/// 129. If SIGHUP is ignored at the start, as under `nohup`, it stays ignored.
///
/// Called once, inside a Tokio runtime. Fails if the system refuses the signal handlers.
pub fn shutdown_on_signals() -> io::Result<CancellationToken> {
    let mut signals = vec![
        (signal(SignalKind::terminate())?, "SIGTERM", libc::SIGTERM),
        (signal(SignalKind::interrupt())?, "SIGINT", libc::SIGINT),
    ];
    if !is_ignored(libc::SIGHUP) {
        signals.push((signal(SignalKind::hangup())?, "SIGHUP", libc::SIGHUP));
    }
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let (name, _) = next(&mut signals).await;
        info!(signal = name, "stopping; a second signal stops at once");
        cancelled.cancel();
        let (name, number) = next(&mut signals).await;
        warn!(signal = name, "stopping at once");
        exit(128 + number);
    });
    Ok(token)
}

/// Flushes the log and ends the process with `status`. Does not run exit handlers, because a thread that is inside a C
/// library, such as OpenSSL, would crash when the library's handler frees its state.
#[expect(unsafe_code, reason = "the standard library has no exit without exit handlers")]
pub fn exit(status: i32) -> ! {
    log_writer::flush();
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(status) }
}

/// Whether the process was started with `signal` ignored.
#[expect(unsafe_code, reason = "the standard library has no such call")]
fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with no new action sigaction only fills the structure, of which zeros are a value.
    let action = unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}

/// Waits for one of `signals`, and returns its name and number.
async fn next(signals: &mut [(Signal, &'static str, i32)]) -> (&'static str, i32) {
    poll_fn(|context| {
        let received = signals.iter_mut().find_map(|(signal, name, number)| {
            let is_received = signal.poll_recv(context).is_ready();
            is_received.then_some((*name, *number))
        });
        received.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    /// The process that the tests below send signals to.
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
        for (signal, status) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
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

    #[test]
    fn a_hangup_that_is_ignored_stays_ignored() {
        let mut child = Command::new("nohup")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "shutdown::tests::child", "--ignored", "--nocapture"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line == "ready"));
        let id = child.id().to_string();
        let kill = |signal| Command::new("kill").args([signal, &*id]).status().unwrap().success();
        assert!(kill("-HUP") && kill("-TERM"));
        assert!(lines.any(|line| line == "stopping"));
        assert!(kill("-INT"));
        // SIGTERM was the first signal: were it the second one, it would have ended the process with 143.
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }
}
