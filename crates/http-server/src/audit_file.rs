//! The audit file: JSON lines in files that are replaced when they are large.
//!
//! Invariant: a request never waits for the file. A thread writes it from a bounded queue. Lines that find no room, or that the disk does
//! not take, are lost and counted: the log and `/readyz` say so.
//!
//! `tracing-appender` replaces files by time, not by size, and does not report what a full disk loses.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use clap::Args;
use tracing::{info, warn};

/// The most lines that wait: a tenth of a second of writes at full load, in at most 8 MiB.
const MAX_QUEUED_LINES: usize = 8_192;

/// How many bytes are written at once, so that a busy service makes few system calls.
const MAX_WRITE_BYTES: usize = 64 * 1024;

/// How long the stop waits for the last lines: enough to write a full queue, and less than an orchestrator's grace period.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The settings of the audit file.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AuditArgs {
    /// A file that gets a JSON line for each write request: who, what, when and the outcome
    #[arg(long, env = "AUDIT_FILE")]
    audit_file: Option<PathBuf>,

    /// The size at which the audit file is replaced by a new one, in megabytes
    #[arg(long, env = "AUDIT_FILE_MAX_MB", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    audit_file_max_mb: u64,

    /// How many earlier audit files are kept, as AUDIT_FILE.1 (the latest) and so on
    #[arg(long, env = "AUDIT_FILE_KEEP", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    audit_file_keep: u32,
}

impl AuditArgs {
    pub(crate) fn open(&self) -> Result<Option<Arc<AuditFile>>, AuditError> {
        let Some(path) = &self.audit_file else { return Ok(None) };
        AuditFile::open(path, self.audit_file_max_mb * 1_000_000, self.audit_file_keep).map(Some)
    }
}

/// Why there is no audit file.
#[derive(Debug, thiserror::Error)]
#[error("cannot open AUDIT_FILE {}: {cause}", path.display())]
pub struct AuditError {
    path: PathBuf,
    cause: io::Error,
}

/// An open audit file. The services of a process share one. Dropping the last reference writes the lines that wait.
#[derive(Debug)]
pub struct AuditFile {
    /// `None` while it is dropped.
    lines: Option<SyncSender<Vec<u8>>>,
    lost: Arc<AtomicU64>,
    /// Ends when the thread has written everything.
    ended: parking_lot::Mutex<Receiver<()>>,
}

impl AuditFile {
    /// Opens the file at `path`, mode 0600, for appending. It is replaced before it has more than `max_bytes`; `keep` earlier ones are kept.
    pub fn open(path: &Path, max_bytes: u64, keep: u32) -> Result<Arc<Self>, AuditError> {
        let failed = |cause| AuditError { path: path.to_owned(), cause };
        let file = open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let (lines, queue) = sync_channel(MAX_QUEUED_LINES);
        let (end, ended) = sync_channel(1);
        let lost = Arc::<AtomicU64>::default();
        let lost_lines = Arc::clone(&lost);
        let mut writer = Writer {
            file,
            length,
            path: path.to_owned(),
            max_bytes,
            keep,
            lost: lost_lines,
            failed: 0,
            is_kept: false,
        };
        let thread = thread::Builder::new().name("audit-file".to_owned());
        let work = move || {
            writer.run(&queue);
            drop(end);
        };
        thread.spawn(work).map_err(failed)?;
        Ok(Arc::new(AuditFile { lines: Some(lines), lost, ended: parking_lot::Mutex::new(ended) }))
    }

    /// Queues a line. Does not block.
    pub(crate) fn write(&self, line: Vec<u8>) {
        let is_queued = self.lines.as_ref().is_some_and(|lines| lines.try_send(line).is_ok());
        if !is_queued && self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            warn!("the audit file is not written fast enough: lines are lost, and counted in /readyz");
        }
    }

    /// Says how many lines were lost since the start, if any.
    pub(crate) fn warning(&self) -> Option<String> {
        let lost = self.lost.load(Ordering::Relaxed);
        (lost > 0).then(|| format!("{lost} lines of the audit file were lost since the start"))
    }
}

impl Drop for AuditFile {
    fn drop(&mut self) {
        self.lines = None;
        if self.ended.get_mut().recv_timeout(FLUSH_TIMEOUT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            warn!("the disk did not take the last lines of the audit file in time");
        }
    }
}

struct Writer {
    file: File,
    length: u64,
    path: PathBuf,
    max_bytes: u64,
    keep: u32,
    lost: Arc<AtomicU64>,
    /// Lines that the disk did not take since it last took one.
    failed: u64,
    /// Whether the last attempt to replace the file failed.
    is_kept: bool,
}

impl Writer {
    /// Writes lines until all senders are gone.
    fn run(&mut self, queue: &Receiver<Vec<u8>>) {
        while let Ok(mut bytes) = queue.recv() {
            let mut lines = 1;
            while bytes.len() < MAX_WRITE_BYTES
                && let Ok(line) = queue.try_recv()
            {
                bytes.extend_from_slice(&line);
                lines += 1;
            }
            self.write(&bytes, lines);
        }
        if let Err(error) = self.file.sync_data() {
            warn!(%error, "the audit file is not synced");
        }
    }

    fn write(&mut self, bytes: &[u8], lines: u64) {
        if self.length > 0 && self.length + bytes.len() as u64 > self.max_bytes {
            self.replace();
        }
        match self.file.write_all(bytes) {
            Ok(()) => {
                self.length += bytes.len() as u64;
                if self.failed > 0 {
                    info!(lost = self.failed, "the audit file is written again");
                    self.failed = 0;
                }
            }
            Err(error) => {
                if self.failed == 0 {
                    warn!(%error, "the audit file cannot be written: lines are lost, and counted in /readyz");
                }
                self.failed += lines;
                self.lost.fetch_add(lines, Ordering::Relaxed);
                // Part of the lines may be in the file. A failure leaves a torn line.
                let _ = self.file.set_len(self.length);
            }
        }
    }

    /// Goes on with a new file. If there is none, the file grows on.
    fn replace(&mut self) {
        match self.next() {
            Ok(file) => (self.file, self.length, self.is_kept) = (file, 0, false),
            Err(error) => {
                if !self.is_kept {
                    warn!(%error, "the audit file cannot be replaced, and grows on");
                }
                self.is_kept = true;
            }
        }
    }

    /// Opens the next file, then renames the earlier ones and this one.
    fn next(&self) -> io::Result<File> {
        let name = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        let next = open(&name(0))?;
        self.file.sync_data()?;
        let earlier = (1..self.keep).rev().map(|number| (name(number), name(number + 1)));
        for (from, to) in earlier.chain([(self.path.clone(), name(1))]) {
            match std::fs::rename(from, to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(name(0), &self.path)?;
        Ok(next)
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}
