//! Moves a group writer's write-ahead log to its file beside the commits (a WAL checkpoint).
//!
//! SQLite does that inside the commit that makes the log long enough: where rows lie scattered in a large file that is thousands of
//! pages and two syncs, and nobody is answered meanwhile. Here a thread of its own moves what there is, and then what came
//! meanwhile; the writer is left with the pages after that, and so begins the log anew. A commit never fails for it: what
//! could not be moved is tried again when the log has become longer. A disk that did not take a page stops the process.
//!
//! A commit's sync waits for all that the disk has been given. So what was moved is written back at a pace
//! (`write_back.rs`) before it is synced; unless no commit came while it was copied, for then SQLite syncs it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use super::open_writer;
use super::write_back::WriteBack;
use crate::{DatabaseFile, OpenError};

/// From so many pages in the log on it is moved: 12 MiB.
const WAL_PAGES: i32 = 3_000;

/// After so many more it is tried again.
const MORE_PAGES: i32 = WAL_PAGES / 4;

/// From so many pages in the log on write-back has no pauses: more is written than the disk takes so, or a reader holds the
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
    file: DatabaseFile,
}

/// Has the log of `writer`, a connection to `file`, moved from now on.
pub(super) fn move_beside(writer: &mut Connection, file: &DatabaseFile) -> Result<(), OpenError> {
    let unusable = |reason: String| OpenError::Unusable { path: file.name().to_owned(), reason };
    let mut mover = Mover::start(file)?;
    let hook = move |log: &mut Wal, pages| {
        mover.committed(log, pages);
        Ok(())
    };
    writer.wal_hook(Some(hook)).map_err(|error| unusable(error.to_string()))
}

impl Mover {
    fn start(file: &DatabaseFile) -> Result<Self, OpenError> {
        let (ask, asked) = sync_channel(1);
        let shared = Shared { is_moved: AtomicBool::new(false), pages: AtomicI32::new(0), file: file.clone() };
        let shared = Arc::new(shared);
        let (for_thread, connection, write_back) = (Arc::clone(&shared), open_writer(file)?, WriteBack(file.file()));
        let thread = Builder::new().name("sqlite-mover".to_owned());
        let thread = thread.spawn(move || run(&connection, &write_back, &asked, &for_thread));
        let thread =
            thread.map_err(|error| OpenError::Unusable { path: file.name().to_owned(), reason: error.to_string() })?;
        Ok(Mover { asked: Some(ask), shared, thread: Some(thread), from_pages: WAL_PAGES })
    }

    /// After each commit of the writer: the log has so many pages.
    fn committed(&mut self, log: &mut Wal, pages: i32) {
        if self.shared.file.fail_stop().has_failed() {
            return;
        }
        if pages < WAL_PAGES {
            self.from_pages = WAL_PAGES;
        }
        self.shared.pages.store(pages, Ordering::Relaxed);
        if self.shared.is_moved.swap(false, Ordering::Acquire) {
            // If a reader still needs the log, it only becomes longer.
            let _ = self.shared.file.check(log.checkpoint());
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

fn run(connection: &Connection, write_back: &WriteBack, asked: &Receiver<()>, shared: &Shared) {
    while asked.recv().is_ok() {
        let moved = move_log(connection, write_back, shared);
        // What was asked meanwhile would find next to nothing.
        while asked.try_recv().is_ok() {}
        match moved {
            Ok(()) => shared.is_moved.store(true, Ordering::Release),
            Err(error) => tracing::warn!(%error, "the write-ahead log is not moved to the file, and becomes longer"),
        }
    }
}

/// Moves what is in the log, and once more what came meanwhile. Returns why it is not moved.
fn move_log(connection: &Connection, write_back: &WriteBack, shared: &Shared) -> Result<(), String> {
    let file = &shared.file;
    let copy = || {
        let copied = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        file.check(copied).map_err(|error| error.to_string())
    };
    // Write-back that fails is an fsync that fails: the kernel marks the pages clean.
    let written = |result: std::io::Result<()>| {
        result.map_err(|error| {
            file.fail_stop().trigger(file.name(), &error);
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
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::{Schema, SqliteFile};

    const SCHEMA: Schema = Schema { application_id: 7, owner: "test", migrations: &["CREATE TABLE one (n BLOB)"] };

    /// How often the log at `path` has begun anew, as its header says (sqlite.org/fileformat2.html, 4.1).
    fn beginnings(path: &Path) -> u32 {
        let header = std::fs::read(path.with_extension("db-wal")).unwrap();
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
    }

    #[test]
    fn a_log_is_kept_once_the_storage_has_failed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        let file = SqliteFile::open(&path, &SCHEMA).unwrap();
        let (connection, _durability) = file.group_writer().unwrap();
        connection.execute("INSERT INTO one VALUES (zeroblob(4000))", []).unwrap();
        let before = beginnings(&path);
        file.fail_stop().trigger(&path, &"the test's own");
        for _ in 0..WAL_PAGES {
            connection.execute("INSERT INTO one VALUES (zeroblob(4000))", []).unwrap();
        }
        drop(connection);
        file.close().unwrap();
        assert_eq!(beginnings(&path), before);
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
