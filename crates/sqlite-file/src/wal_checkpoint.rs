//! WAL checkpoints on a thread of their own, beside the commits of a group commit.
//!
//! By default SQLite runs the checkpoint inside the commit that makes the write-ahead log long enough. Where rows are
//! scattered over a large file, that commit writes thousands of pages and syncs twice, and no request is answered
//! meanwhile. Here a thread runs passive checkpoints, and the writer copies only the pages that were committed since, which
//! lets SQLite restart the log (docs/decisions/0003). A commit never fails because of a checkpoint: a failed one is
//! repeated when the log has grown. An I/O error of the disk stops the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use crate::write_back::{write_back_all, write_back_paced};
use crate::{DatabaseFile, OpenError, open_writer};

/// The length of the log at which a checkpoint starts, in pages: 12 MiB.
const WAL_PAGES: i32 = 3_000;

/// The growth after which the next attempt starts, in pages.
const RETRY_PAGES: i32 = WAL_PAGES / 4;

/// The length of the log from which write-back has no pauses, in pages: commits outpace the paced disk, or a reader holds
/// the log. It is below the length that the log file is cut back to, because a log file that grows again syncs more slowly.
const URGENT_PAGES: i32 = WAL_PAGES * 2;

/// The writer's end of the checkpoint thread, which ends with the writer's connection.
struct Checkpointer {
    requests: Option<SyncSender<()>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// The length of the log at which the next checkpoint is requested, in pages.
    next_pages: i32,
}

struct Shared {
    /// The thread has copied nearly all of the log, and the writer is to copy the rest.
    is_copied: AtomicBool,
    /// The length of the log after the last commit, in pages.
    pages: AtomicI32,
    file: DatabaseFile,
}

/// Replaces SQLite's automatic checkpoints of `writer`, a connection to `file`.
pub(crate) fn checkpoint_beside(writer: &mut Connection, file: &DatabaseFile) -> Result<(), OpenError> {
    let (requests, receiver) = sync_channel(1);
    let shared = Shared { is_copied: AtomicBool::new(false), pages: AtomicI32::new(0), file: file.clone() };
    let (shared, connection) = (Arc::new(shared), open_writer(file)?);
    let for_thread = Arc::clone(&shared);
    let thread = Builder::new().name("wal-checkpoint".to_owned());
    let thread = thread.spawn(move || run(&connection, &receiver, &for_thread));
    let thread = Some(thread.map_err(|error| OpenError::unusable(file.name(), error))?);
    let mut checkpointer = Checkpointer { requests: Some(requests), shared, thread, next_pages: WAL_PAGES };
    let hook = move |log: &mut Wal, pages| {
        checkpointer.committed(log, pages);
        Ok(())
    };
    writer.wal_hook(Some(hook)).map_err(|error| OpenError::unusable(file.name(), error))
}

impl Checkpointer {
    /// Runs after each commit of the writer, which leaves `pages` pages in the log.
    fn committed(&mut self, log: &mut Wal, pages: i32) {
        if self.shared.file.fail_stop().has_failed() {
            return;
        }
        if pages < WAL_PAGES {
            self.next_pages = WAL_PAGES;
        }
        self.shared.pages.store(pages, Ordering::Relaxed);
        if self.shared.is_copied.swap(false, Ordering::Acquire) {
            // If a reader still needs the log, the log grows on.
            let _ = self.shared.file.check(log.checkpoint());
        } else if pages >= self.next_pages
            && self.requests.as_ref().is_some_and(|requests| requests.try_send(()).is_ok())
        {
            self.next_pages = pages.saturating_add(RETRY_PAGES);
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.requests = None;
        self.shared.pages.store(i32::MAX, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the WAL checkpoint thread panicked");
        }
    }
}

fn run(connection: &Connection, requests: &Receiver<()>, shared: &Shared) {
    while requests.recv().is_ok() {
        let result = checkpoint(connection, shared);
        // The checkpoint has served the requests that arrived meanwhile.
        while requests.try_recv().is_ok() {}
        match result {
            Ok(()) => shared.is_copied.store(true, Ordering::Release),
            Err(error) => {
                tracing::warn!(%error, "the WAL checkpoint failed, the write-ahead log grows until the next one")
            }
        }
    }
}

/// Copies the log to the file, and then what was committed meanwhile. Writes the pages back before SQLite or the writer
/// syncs them, because an fsync of many pages delays the commits' fsyncs.
fn checkpoint(connection: &Connection, shared: &Shared) -> Result<(), String> {
    let file = &shared.file;
    let copy = || {
        let copied = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        file.check(copied).map_err(|error| error.to_string())
    };
    // The kernel marks the pages of a failed write-back clean, so it is a failed fsync.
    let fail_stop = |error: std::io::Error| {
        file.fail_stop().trigger(file.name(), &error);
        error.to_string()
    };
    copy()?;
    write_back_paced(&file.file(), || shared.pages.load(Ordering::Relaxed) >= URGENT_PAGES).map_err(fail_stop)?;
    copy()?;
    write_back_all(&file.file()).map_err(fail_stop)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::{Schema, SqliteFile};

    const SCHEMA: Schema = Schema { application_id: 7, owner: "test", migrations: &["CREATE TABLE one (n BLOB)"] };

    /// How often the log at `path` was restarted, from its header (sqlite.org/fileformat2.html, 4.1).
    fn restarts(path: &Path) -> u32 {
        let header = std::fs::read(path.with_extension("db-wal")).unwrap();
        header.get(12..16).map_or(0, |number| u32::from_be_bytes(number.try_into().unwrap()))
    }

    #[test]
    fn a_long_log_is_copied_and_restarted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        let file = SqliteFile::open(&path, &SCHEMA).unwrap();
        let (connection, _) = file.group_writer().unwrap();
        let (before, began) = (restarts(&path), Instant::now());
        let mut rows = 0;
        while restarts(&path) < before + 2 {
            assert!(began.elapsed() < Duration::from_secs(60), "the log is not restarted");
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
        let before = restarts(&path);
        file.fail_stop().trigger(&path, &"the test's own");
        for _ in 0..WAL_PAGES {
            connection.execute("INSERT INTO one VALUES (zeroblob(4000))", []).unwrap();
        }
        drop(connection);
        file.close().unwrap();
        assert_eq!(restarts(&path), before);
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
