//! Moves a group writer's write-ahead log to its file beside the commits.
//!
//! SQLite does that inside the commit that makes the log long enough: where rows lie scattered in a large file that is thousands of
//! pages and two syncs, and nobody is answered meanwhile. Here a thread of its own moves what there is, and then what came
//! meanwhile; the writer is left with the pages after that, and so begins the log anew. A commit never fails for it: what
//! could not be moved is tried again when the log has become longer.
//!
//! A commit's sync waits for all that the disk has been given. So what was moved goes there bit by bit (`write_back.rs`) before
//! it is synced; unless no commit came while it was copied, for then SQLite syncs it at once.

use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use super::disk::Disk;
use super::open_writer;
use super::write_back::WriteBack;
use crate::OpenError;

/// From so many pages in the log on it is moved: 12 MiB.
const WAL_PAGES: i32 = 3_000;

/// After so many more it is tried again.
const MORE_PAGES: i32 = WAL_PAGES / 4;

/// From so many pages in the log on nothing goes to disk bit by bit: more is written than the disk takes so, or a reader holds the
/// log. It stays below what the log is cut back to, for one that is cut and grows again is synced more slowly.
const URGENT_PAGES: i32 = WAL_PAGES * 2;

/// The thread that moves. It ends with the connection that asks it to.
struct Mover {
    asked: Option<SyncSender<()>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Pages in the log from which on it is asked.
    from_pages: i32,
}

/// What the writer and the thread tell each other.
struct Shared {
    /// Nearly all of the log is moved, and the writer is to move the rest.
    is_moved: AtomicBool,
    /// Pages in the log after the last commit.
    pages: AtomicI32,
    disk: Arc<Disk>,
}

/// Has the log of `writer`, a connection to the file at `path` on `disk`, moved from now on.
pub(super) fn move_beside(writer: &mut Connection, path: &Path, disk: &Arc<Disk>) -> Result<(), OpenError> {
    let unusable = |reason: String| OpenError::Unusable { path: path.to_owned(), reason };
    let mut mover = Mover::start(path.to_owned(), Arc::clone(disk)).map_err(|error| unusable(error.to_string()))?;
    let hook = move |log: &mut Wal, pages| {
        mover.committed(log, pages);
        Ok(())
    };
    writer.wal_hook(Some(hook)).map_err(|error| unusable(error.to_string()))
}

impl Mover {
    fn start(path: PathBuf, disk: Arc<Disk>) -> std::io::Result<Self> {
        let (ask, asked) = sync_channel(1);
        let shared = Arc::new(Shared { is_moved: AtomicBool::new(false), pages: AtomicI32::new(0), disk });
        let (for_thread, write_back) = (Arc::clone(&shared), WriteBack::open(&path)?);
        let thread = Builder::new().name("sqlite-mover".to_owned());
        let thread = thread.spawn(move || run(&path, &write_back, &asked, &for_thread))?;
        Ok(Mover { asked: Some(ask), shared, thread: Some(thread), from_pages: WAL_PAGES })
    }

    /// After each commit of the writer: the log has so many pages.
    fn committed(&mut self, log: &mut Wal, pages: i32) {
        if self.shared.disk.has_failed() {
            return;
        }
        if pages < WAL_PAGES {
            self.from_pages = WAL_PAGES;
        }
        self.shared.pages.store(pages, Ordering::Relaxed);
        if self.shared.is_moved.swap(false, Ordering::Acquire) {
            // If a reader still needs the log, it only becomes longer.
            if let Err(error) = log.checkpoint() {
                self.shared.disk.note(&error);
            }
        } else if pages >= self.from_pages && self.asked.as_ref().is_some_and(|asked| asked.try_send(()).is_ok()) {
            self.from_pages = pages.saturating_add(MORE_PAGES);
        }
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.asked = None;
        self.shared.pages.store(i32::MAX, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that moves the write-ahead log had panicked");
        }
    }
}

fn run(path: &Path, write_back: &WriteBack, asked: &Receiver<()>, shared: &Shared) {
    while asked.recv().is_ok() {
        let moved = move_log(path, write_back, shared);
        // What was asked meanwhile would find next to nothing.
        while asked.try_recv().is_ok() {}
        match moved {
            Ok(()) => shared.is_moved.store(true, Ordering::Release),
            Err(error) => tracing::warn!(%error, "the write-ahead log is not moved to the file, and becomes longer"),
        }
    }
    if shared.disk.has_failed() {
        // The last connection that is closed moves the log and removes it. With one that is never closed there is no last one.
        match open_writer(path) {
            Ok(connection) => mem::forget(connection),
            Err(error) => tracing::error!(%error, "the write-ahead log cannot be kept"),
        }
    }
}

/// Moves what is in the log, and once more what came meanwhile. Gives why it is not moved.
fn move_log(path: &Path, write_back: &WriteBack, shared: &Shared) -> Result<(), String> {
    // A connection that stayed open would be the last one to be closed, in place of the writer.
    let connection = open_writer(path).map_err(|error| error.to_string())?;
    let copy = || {
        let copied = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        copied.map_err(|error| {
            shared.disk.note(&error);
            error.to_string()
        })
    };
    let written = |result: std::io::Result<()>| {
        result.map_err(|error| {
            shared.disk.fail(&error);
            error.to_string()
        })
    };
    copy()?;
    written(write_back.spread(|| shared.pages.load(Ordering::Relaxed) >= URGENT_PAGES))?;
    copy()?;
    // Without a pause: what comes meanwhile is left to the writer, inside a commit.
    written(write_back.all())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sqlite::{Schema, SqliteFile, beside};

    const SCHEMA: Schema = Schema { application_id: 7, owner: "test", migrations: &["CREATE TABLE one (n BLOB)"] };

    /// How often the log at `path` has begun anew, as its header says (sqlite.org/fileformat2.html, 4.1).
    fn beginnings(path: &Path) -> u32 {
        let header = std::fs::read(beside(path, "-wal")).unwrap();
        header.get(12..16).map_or(0, |number| u32::from_be_bytes(number.try_into().unwrap()))
    }

    #[test]
    fn a_log_that_is_long_is_moved_and_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        let file = SqliteFile::open(&path, &SCHEMA).unwrap();
        let (connection, _) = file.group_writer().unwrap();
        let (before, began) = (beginnings(&path), Instant::now());
        let mut rows = 0;
        while beginnings(&path) < before + 2 {
            assert!(began.elapsed() < Duration::from_secs(60), "the log still begins where it did");
            for _ in 0..100 {
                connection.execute("INSERT INTO one VALUES (zeroblob(4000))", []).unwrap();
            }
            rows += 100;
        }
        // A commit writes three pages or four.
        assert!(rows * 4 > i64::from(WAL_PAGES), "not for each commit: {rows}");
        let count = |connection: &Connection| {
            connection.query_row("SELECT count(*) FROM one", [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(count(&file.reader().unwrap()), rows);
        drop(connection);
        assert!(!beside(&path, "-wal").exists(), "the writer was the last one");
        assert_eq!(count(&file.reader().unwrap()), rows);
    }

    #[test]
    fn a_log_is_kept_once_the_disk_has_failed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        let file = SqliteFile::open(&path, &SCHEMA).unwrap();
        let mut connection = file.writer().unwrap();
        let disk = Arc::<Disk>::default();
        move_beside(&mut connection, &path, &disk).unwrap();
        connection.execute("INSERT INTO one VALUES (zeroblob(4000))", []).unwrap();
        let before = beginnings(&path);
        disk.fail(&"the test's own");
        for _ in 0..WAL_PAGES {
            connection.execute("INSERT INTO one VALUES (zeroblob(4000))", []).unwrap();
        }
        drop(connection);
        assert_eq!(beginnings(&path), before, "it is as it was");
        // As the next start finds it.
        let copy = folder.path().join("copy.db");
        for suffix in ["", "-wal"] {
            std::fs::copy(beside(&path, suffix), beside(&copy, suffix)).unwrap();
        }
        let again = Connection::open(&copy).unwrap();
        let count = again.query_row("SELECT count(*) FROM one", [], |row| row.get::<_, i32>(0)).unwrap();
        assert_eq!(count, WAL_PAGES + 1);
    }

    #[test]
    fn a_reader_that_holds_the_log_holds_no_commit() {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteFile::open(&folder.path().join("file.db"), &SCHEMA).unwrap();
        let (connection, _) = file.group_writer().unwrap();
        connection.execute("INSERT INTO one VALUES (NULL)", []).unwrap();
        let mut reader = file.reader().unwrap();
        let reading = reader.transaction().unwrap();
        let count = || reading.query_row("SELECT count(*) FROM one", [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(count(), 1);
        for _ in 0..WAL_PAGES * 2 {
            connection.execute("INSERT INTO one VALUES (zeroblob(4000))", []).unwrap();
        }
        assert_eq!(count(), 1);
    }
}
