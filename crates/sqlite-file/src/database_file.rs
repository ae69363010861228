//! The lock, the start and the clean stop of a SQLite file in WAL mode.
//!
//! - **Lock.** One process owns the file. The lock is on the database file itself, so symbolic links, hard links and other
//!   spellings of the path share it.
//! - **Start.** While a process owns the file, its header says "WAL mode"; after a clean stop it says "rollback mode". A
//!   file in WAL mode without its `-wal` file may lack acknowledged rows, and the start warns of it.
//! - **Stop.** [`DatabaseFile::close`] checkpoints and removes the write-ahead log. Closing a connection does neither, so no
//!   panic and no failed disk loses its rows.
//! - **Failure.** [`FailStop`] stops the process when the storage fails.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use crate::OpenError;
use crate::fail_stop::{self, FailStop};
use crate::modes::{create_folder, for_owner, warn_of_exposed};

/// How long opening waits for a process that only tests the lock ([`UseProbe`]).
const LOCK_PATIENCE: Duration = Duration::from_millis(300);

/// The pause between two attempts to lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How long a change of the journal mode waits for other processes, such as an operator's `sqlite3`.
const MODE_PATIENCE: Duration = Duration::from_secs(2);

/// How long the WAL checkpoint at the start waits for other processes. Later checkpoints repeat it.
const CHECKPOINT_PATIENCE: Duration = Duration::from_millis(100);

/// The offset of the read version in the header (sqlite.org/fileformat2.html, 1.3).
const READ_VERSION_OFFSET: u64 = 19;

/// The read version of a file in WAL mode.
const WAL_VERSION: u8 = 2;

/// A locked file. Clones are of the same lock, which lasts as long as any of them.
#[derive(Debug, Clone)]
pub struct DatabaseFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The path as it was given, for messages.
    name: PathBuf,
    /// The canonical path: SQLite puts the write-ahead log beside the target of a link.
    path: PathBuf,
    /// Stays open until the last connection is closed: closing any descriptor of the file releases SQLite's own locks on it
    /// in this process (sqlite.org/howtocorrupt.html, 2.2).
    file: Arc<File>,
    _lock: File,
    fail_stop: FailStop,
    /// Whether WAL mode was started. A file that was refused before that stays as it is.
    is_started: AtomicBool,
}

impl DatabaseFile {
    /// Locks the file at `name`. Creates the file and its folder for the owner alone if they are missing. Warns if other
    /// users may read them, and if the write-ahead log is missing.
    pub fn open(name: &Path) -> Result<Self, OpenError> {
        let folder = name.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            create_folder(folder).map_err(|error| OpenError::unusable(folder, error))?;
        }
        let file = for_owner().read(true).open(name).map_err(|error| OpenError::unusable(name, error))?;
        let path = fs::canonicalize(name).map_err(|error| OpenError::unusable(name, error))?;
        let lock = lock(&file, &path).map_err(|error| OpenError::unusable(name, error))?;
        let began = Instant::now();
        while let Err(error) = lock.try_lock() {
            match error {
                TryLockError::WouldBlock if began.elapsed() < LOCK_PATIENCE => thread::park_timeout(LOCK_PAUSE),
                TryLockError::WouldBlock => {
                    // The owner may be in this process, and closing the file would release its locks.
                    std::mem::forget((file, lock));
                    let text = "is in use by another process: two would overwrite each other's rows";
                    return Err(OpenError(format!("{} {text}", name.display())));
                }
                TryLockError::Error(error) => return Err(OpenError::unusable(name, error)),
            }
        }
        let [wal, shm] = ["-wal", "-shm"].map(|suffix| beside(&path, suffix));
        // SQLite's own error would name neither the file nor the cause.
        for path in [&wal, &shm] {
            match File::options().read(true).write(true).open(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(OpenError::unusable(path, error)),
                _ => {}
            }
        }
        let mut version = [0];
        let is_in_wal_mode = file.read_exact_at(&mut version, READ_VERSION_OFFSET).is_ok() && version == [WAL_VERSION];
        if is_in_wal_mode && !wal.exists() {
            tracing::warn!(
                path = %name.display(),
                "the write-ahead log {} is missing, and the file was not closed by a clean stop: rows that were \
                 acknowledged may be missing. If the file is a copy, copy it again, with its -wal file or after a clean \
                 stop. It is complete if the .backup command of sqlite3 wrote it, or if sqlite3 has opened it since",
                wal.display(),
            );
        }
        let folder = folder.into_iter();
        warn_of_exposed(&folder.chain([name, &wal, &shm]).collect::<Vec<_>>());
        Ok(DatabaseFile(Arc::new(Inner {
            name: name.to_owned(),
            path,
            file: Arc::new(file),
            _lock: lock,
            fail_stop: FailStop::default(),
            is_started: AtomicBool::new(false),
        })))
    }

    /// Opens a connection. The caller keeps a clone of this file until the connection is closed.
    pub fn connect(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        connect_beside(&self.0.path, flags)
    }

    /// Puts the file into WAL mode, and checkpoints and syncs what a killed process left in the write-ahead log. `connection`
    /// is the first one; this changes its busy timeout.
    pub fn start_wal(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection.busy_timeout(MODE_PATIENCE)?;
        self.0.is_started.store(true, Ordering::Release);
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.busy_timeout(CHECKPOINT_PATIENCE)?;
        match connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            // Reads work without the checkpoint.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                tracing::warn!(path = %self.0.name.display(), %error, "the WAL checkpoint at the start failed; a later one repeats it");
            }
            moved => moved?,
        }
        let synced = self.sync_folder().and_then(|()| File::open(beside(&self.0.path, "-wal"))?.sync_data());
        synced.map_err(|error: io::Error| {
            let failure = ffi::Error::new(ffi::SQLITE_IOERR_FSYNC);
            rusqlite::Error::SqliteFailure(failure, Some(error.to_string()))
        })
    }

    /// Checkpoints and removes the write-ahead log, and puts the file into rollback mode. All connections of this process
    /// must be closed before. Does nothing after a storage failure or without [`start_wal`](DatabaseFile::start_wal).
    ///
    /// If another process has the file open, the file stays in WAL mode with an empty log.
    pub fn close(&self) -> Result<(), String> {
        if self.0.fail_stop.has_failed() || !self.0.is_started.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|error| error.to_string())?;
        let run = |sql: &str| {
            connection.busy_timeout(MODE_PATIENCE)?;
            self.check(connection.query_row(sql, [], |_| Ok(())))
        };
        match run("PRAGMA journal_mode = DELETE") {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                run("PRAGMA wal_checkpoint(TRUNCATE)").map_err(|error| error.to_string())?;
                let path = self.0.name.display();
                tracing::warn!(%path, "another process has the file open: its -wal file stays, copy both together");
            }
            closed => closed.map_err(|error| error.to_string())?,
        }
        drop(connection);
        self.sync_folder().map_err(|error| error.to_string())
    }

    /// Returns `result`, which SQLite has just returned to this thread, after [`check_error`](DatabaseFile::check_error).
    pub fn check<T>(&self, result: rusqlite::Result<T>) -> rusqlite::Result<T> {
        result.inspect_err(|error| self.check_error(error))
    }

    /// Triggers the [`FailStop`] if `error`, which SQLite has just returned to this thread, is a failure of the storage.
    pub fn check_error(&self, error: &rusqlite::Error) {
        if fail_stop::is_storage_failure(error) {
            self.0.fail_stop.trigger(&self.0.name, error);
        }
    }

    /// What stops the process when the storage of this file fails.
    pub fn fail_stop(&self) -> &FailStop {
        &self.0.fail_stop
    }

    /// The database file, open for reading and writing.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.0.file)
    }

    /// The path as it was given, for messages.
    pub fn name(&self) -> &Path {
        &self.0.name
    }

    /// The file whose name is that of the database with `suffix`: `-wal`.
    pub fn beside(&self, suffix: &str) -> PathBuf {
        beside(&self.0.path, suffix)
    }

    /// Makes the names of the files durable.
    fn sync_folder(&self) -> io::Result<()> {
        File::open(self.0.path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }
}

/// Opens a connection to the file at `path`, without its lock. Closing the connection does not checkpoint.
pub fn connect_beside(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// Tests whether a process owns a file. Keeps the file open, because closing it would release the locks of this process's
/// connections to it.
#[derive(Debug)]
pub struct UseProbe {
    _file: File,
    lock: File,
}

impl UseProbe {
    /// For the file at `path`.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let open = || {
            let file = File::options().read(true).write(true).open(path)?;
            Ok(UseProbe { lock: lock(&file, &fs::canonicalize(path)?)?, _file: file })
        };
        open().map_err(|error: io::Error| OpenError::unusable(path, error))
    }

    /// Whether a process owns the file now.
    pub fn is_in_use(&self) -> bool {
        match self.lock.try_lock() {
            Ok(()) => self.lock.unlock().is_err(),
            Err(error) => matches!(error, TryLockError::WouldBlock),
        }
    }
}

/// The file that carries the lock: the database file itself, because on Linux `flock` and SQLite's `fcntl` locks are
/// independent.
#[cfg(target_os = "linux")]
fn lock(file: &File, _path: &Path) -> io::Result<File> {
    file.try_clone()
}

/// The file that carries the lock: one beside the database, because here the two kinds of lock exclude each other.
#[cfg(not(target_os = "linux"))]
fn lock(_file: &File, path: &Path) -> io::Result<File> {
    for_owner().open(beside(path, ".lock"))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests;
