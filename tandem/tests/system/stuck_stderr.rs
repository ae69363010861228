//! A standard error that nobody reads, as behind a log collector that hangs: everything goes on but the log.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use test_harness::{Http, binary, output_of, wait_until};

use crate::requests::{create_account, create_card};

/// Accounts and cards enough for several times what a pipe holds (64 KiB) in lines of `debug`, one a request.
const ACCOUNTS: usize = 400;

/// Requests whose lines together are longer than the queue of log lines (1 MiB), and how long the path in each is.
const LONG_REQUESTS: usize = 2_000;
const LONG_PATH: usize = 1_000;

/// The all-in-one with a standard error that nobody reads. It is killed when dropped.
struct Unread {
    child: Child,
    accounts: Http,
    cards: Http,
}

impl Unread {
    fn start(folder: &TempDir) -> Self {
        // Where it listens is in the log, which is not read.
        let ports = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
        let addresses = ports.each_ref().map(|port| port.local_addr().expect("an address"));
        drop(ports);
        let [account_port, card_port] = addresses.map(|address| address.port().to_string());
        let settings = [("ACCOUNT_PORT", account_port), ("CARD_PORT", card_port), ("LOG_LEVEL", "debug".to_owned())];
        let mut command = Command::new(binary("tandem"));
        command.current_dir(folder.path()).env_clear().envs(settings).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::piped()).spawn().expect("a binary that starts");
        let unread = Unread { child, accounts: Http::new(addresses[0]), cards: Http::new(addresses[1]) };
        unread.expect_ready();
        unread
    }

    fn expect_ready(&self) {
        for service in [&self.accounts, &self.cards] {
            wait_until("the service is ready", || {
                service.try_send("GET", "/readyz", &[], Vec::new()).ok().filter(|answer| answer.status == 200)
            });
        }
    }

    fn work(&self) {
        for _ in 0..ACCOUNTS {
            let id = create_account(&self.accounts);
            wait_until("the account gets a card", || (create_card(&self.cards, id).status == 201).then_some(()));
        }
    }

    /// SIGTERM, and waits for the end.
    fn terminate(&mut self) -> Option<i32> {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill");
        assert!(status.success());
        wait_until("the process ends", || self.child.try_wait().expect("a child")).code()
    }

    fn stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("piped")
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let folder = TempDir::new().unwrap();
    let mut tandem = Unread::start(&folder);
    tandem.work();
    tandem.expect_ready();
    assert_eq!(tandem.terminate(), Some(0));
}

#[test]
fn lines_that_were_dropped_are_counted_once_the_log_is_read_again() {
    let folder = TempDir::new().unwrap();
    let mut tandem = Unread::start(&folder);
    let path = format!("/{}", "x".repeat(LONG_PATH));
    for _ in 0..LONG_REQUESTS {
        tandem.accounts.get(&path).expect(404);
    }
    let mut lines = BufReader::new(tandem.stderr()).lines().map_while(Result::ok);
    let reported = lines.find_map(|line| {
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let is_report = line["message"] == "dropped log lines that stderr did not take in time";
        is_report.then(|| line["lines"].as_u64())
    });
    assert!(reported.flatten() > Some(0), "{reported:?}");
    // Nothing is dropped while the log is read, the last line included.
    let reader = std::thread::spawn(move || lines.last());
    assert_eq!(tandem.terminate(), Some(0));
    let last = reader.join().unwrap().expect("lines of the end");
    assert!(last.contains("\"message\":\"stopped\""), "{last}");
}

#[test]
fn a_start_that_fails_says_why_in_its_last_line() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("file"), "no folder").unwrap();
    let mut command = Command::new(binary("tandem"));
    let settings = [("ACCOUNT_PORT", "0"), ("CARD_PORT", "0"), ("DATA_DIR", "file")];
    let output = output_of(command.current_dir(folder.path()).env_clear().envs(settings));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.starts_with("error: ") && line.contains("file")), "{text}");
}
