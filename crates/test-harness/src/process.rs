//! Binaries of this workspace as processes: started on ports of their own choice, their logs read, stopped or killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;

use crate::{Http, wait_until};

/// A running binary. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    is_unread: Arc<AtomicBool>,
    /// Keeps what the thread returns, so that the pipe stays open where the thread has stopped reading.
    _reader: Option<JoinHandle<Lines<BufReader<ChildStderr>>>>,
}

/// The binary `name`, which cargo builds beside the program that asks for it, or a folder above if that is a test.
pub fn binary(name: &str) -> PathBuf {
    let asking = std::env::current_exe().expect("a program has a path");
    let mut beside = asking.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    beside
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not built: run cargo test --workspace, or cargo build --workspace first"))
}

/// Runs `command`, which is to end by itself, and gives what it wrote; less than a pipe holds, which is 64 KiB. Panics if
/// it does not end, and kills it then.
pub fn output_of(command: &mut Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let mut process = Process { child, lines: Arc::default(), is_unread: Arc::default(), _reader: None };
    let status = process.wait();
    let mut output = Output { status, stdout: Vec::new(), stderr: Vec::new() };
    let (stdout, stderr) = (process.child.stdout.take(), process.child.stderr.take());
    stdout.expect("piped").read_to_end(&mut output.stdout).expect("a pipe");
    stderr.expect("piped").read_to_end(&mut output.stderr).expect("a pipe");
    output
}

impl Process {
    /// Starts `binary` in `folder` with nothing in its environment but `settings`, and ports that it picks itself.
    pub fn start(binary: &Path, folder: &Path, settings: &[(&str, &str)]) -> Self {
        let ports = ["PORT", "ACCOUNT_PORT", "CARD_PORT"].map(|name| (name, "0"));
        let settings: BTreeMap<_, _> = ports.into_iter().chain(settings.iter().copied()).collect();
        let mut command = Command::new(binary);
        command.current_dir(folder).env_clear().envs(settings);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", binary.display()));
        let (lines, is_unread) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let mut stderr = BufReader::new(child.stderr.take().expect("piped")).lines();
        let (sink, stop) = (Arc::clone(&lines), Arc::clone(&is_unread));
        let reader = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Some(Ok(line)) = stderr.next() else { break };
                sink.lock().expect("no panic while it is held").push(line);
            }
            stderr
        });
        Process { child, lines, is_unread, _reader: Some(reader) }
    }

    /// A client for the service called `name`, once the process listens.
    pub fn service(&mut self, name: &str) -> Http {
        let address = wait_until("the service listens", || {
            if let Some(status) = self.child.try_wait().expect("a child") {
                panic!("it ended with {status}: {:#?}", self.lines());
            }
            self.logged().into_iter().find_map(|line| {
                let listening = line["message"] == "listening" && line["service"] == name;
                listening.then(|| line["address"].as_str().and_then(|address| address.parse().ok())).flatten()
            })
        });
        Http::new(address)
    }

    /// A client for the service called `name`, once it is ready.
    pub fn ready_service(&mut self, name: &str) -> Http {
        let service = self.service(name);
        wait_until("the service is ready", || {
            if let Some(status) = self.child.try_wait().expect("a child") {
                panic!("it ended with {status}: {:#?}", self.lines());
            }
            service.try_send("GET", "/readyz", &[], Vec::new()).ok().filter(|answer| answer.status == 200)
        });
        service
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its standard error so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no panic while it is held").clone()
    }

    /// Reads one more line of its standard error at most: the pipe stays open and fills up.
    pub fn leave_stderr_unread(&self) {
        self.is_unread.store(true, Ordering::Relaxed);
    }

    /// Its log lines so far.
    pub fn logged(&self) -> Vec<Value> {
        self.lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// SIGKILL: it has no chance to do anything.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child");
        self.child.wait().expect("a child");
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait()
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_until("the process ends", || self.child.try_wait().expect("a child"))
    }

    /// Sends any signal, such as SIGSTOP.
    pub fn signal(&self, signal: i32) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        #[expect(unsafe_code, reason = "the standard library sends no signal but SIGKILL")]
        // SAFETY: kill takes two integers and touches no memory; the id is that of a child not waited for yet.
        let result = unsafe { libc::kill(id, signal) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.lines.lock().map(|lines| lines.clone()).unwrap_or_default();
            eprintln!("the last lines of process {}: {:#?}", self.id(), &lines[lines.len().saturating_sub(20)..]);
        }
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
