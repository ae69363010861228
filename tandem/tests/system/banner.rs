//! What a person sees who starts a binary in a terminal.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::process::{Child, Command};
use std::ptr::null_mut;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use tempfile::TempDir;
use test_harness::{binary, wait_until};

/// A binary in a terminal. It is killed when dropped.
struct InTerminal {
    child: Child,
    output: Receiver<Vec<u8>>,
    text: String,
}

impl InTerminal {
    fn start(name: &str, folder: &TempDir, settings: &[(&str, &str)]) -> Self {
        let (mut ours, theirs) = open_terminal();
        let mut command = Command::new(binary(name));
        command.current_dir(folder.path()).env_clear().envs(settings.iter().copied());
        let errors = theirs.try_clone().expect("a file descriptor");
        let child = command.stdout(theirs).stderr(errors).spawn().expect("a binary that starts");
        // The command holds the terminal's other end, and reading goes on until nobody does.
        drop(command);
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok(length @ 1..) = ours.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        InTerminal { child, output, text: String::new() }
    }

    /// What the terminal shows once `last` is there.
    fn shows(&mut self, last: &str) -> &str {
        wait_until(last, || {
            match self.output.try_recv() {
                Ok(bytes) => self.text.push_str(&String::from_utf8_lossy(&bytes)),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => panic!("it ended without {last:?}: {}", self.text),
            }
            self.text.contains(last).then_some(())
        });
        &self.text
    }
}

impl Drop for InTerminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both ends of a new terminal: the one to read from, and the one for a process.
fn open_terminal() -> (File, OwnedFd) {
    let (mut ours, mut theirs) = (-1, -1);
    #[expect(unsafe_code, reason = "the standard library makes no terminals")]
    // SAFETY: openpty writes the two file descriptors and reads nothing through the null pointers. What it opened belongs
    // to nobody else.
    unsafe {
        let opened = libc::openpty(&raw mut ours, &raw mut theirs, null_mut(), null_mut(), null_mut());
        assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
        (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs))
    }
}

#[test]
fn a_terminal_shows_addresses_data_events_and_the_first_curl() {
    let kafka = ("KAFKA_BROKERS", "127.0.0.1:1");
    let cases = [
        ("tandem", None, ["Accounts", "Cards", "Data", "Events", "Try"].as_slice()),
        ("account-service", Some(kafka), &["Address", "Data", "Events", "Try"]),
        ("card-service", Some(kafka), &["Address", "Data", "Events", "Try"]),
    ];
    for (name, setting, labels) in cases {
        let folder = TempDir::new().unwrap();
        let settings = [("ACCOUNT_PORT", "0"), ("CARD_PORT", "0"), ("PORT", "0")];
        let settings: Vec<_> = settings.into_iter().chain(setting).collect();
        let mut terminal = InTerminal::start(name, &folder, &settings);
        let text = terminal.shows("listening").to_owned();
        let (banner, logs) = text.split_once("╯").unwrap_or_else(|| panic!("no banner: {text}"));
        for label in labels {
            assert!(banner.contains(&format!("│ {label}")), "{label} in {banner}");
        }
        assert!(
            banner.contains("http://127.0.0.1:") && banner.contains("curl ") && banner.contains("data/"),
            "{banner}"
        );
        assert!(!logs.contains("{\"timestamp\""), "a person reads no JSON: {logs}");
    }
}
