//! Which commits to a SQLite file are durable, where one thread writes them and another one syncs them.
//!
//! With `synchronous=NORMAL` a commit is in the write-ahead log when it returns, whole and in order, and a power cut may take
//! it back until the log is synced: that sync is all that `FULL` adds. Here it is done beside the next commit, and
//! whoever waits for a commit waits for the sync behind it. Readers see a commit before that, so they wait, too, until what they
//! saw is durable: nobody is told, and no event tells, what a power cut would take back (ARCHITECTURE.md A2, B1).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::disk::Disk;
use super::{beside, open_writer};
use crate::{OpenError, StoreError, Syncer};

/// How long moving the write-ahead log to the file waits for those who read or write meanwhile. It is tried again.
const MOVE_PATIENCE: Duration = Duration::from_millis(100);

/// How far one writer's commits to a file are durable. Clones are of the same writer.
#[derive(Clone)]
pub struct Durability(Arc<State>);

struct State {
    path: PathBuf,
    disk: Arc<Disk>,
    write_ahead_log: File,
    /// Transactions that readers may see, from just before their commit on.
    announced: AtomicU64,
    /// Of these, how many commits have returned.
    written: AtomicU64,
    synced: Mutex<Synced>,
}

#[derive(Default)]
struct Synced {
    /// How many transactions are durable.
    count: u64,
    /// Whether the last sync failed: what the system still had to write by then it may have forgotten.
    is_broken: bool,
    /// Those who wait until so many are durable. Each stands for a request or a thread.
    waiting: Vec<(u64, oneshot::Sender<()>)>,
}

impl Durability {
    /// Of the file at `path` on `disk`, which has a connection in WAL mode. What a process that was killed has left there is synced.
    pub(super) fn open(path: &Path, disk: Arc<Disk>) -> Result<Self, OpenError> {
        let open = || {
            let write_ahead_log = File::open(beside(path, "-wal"))?;
            write_ahead_log.sync_data()?;
            Ok(write_ahead_log)
        };
        let unusable = |error: io::Error| OpenError::Unusable { path: beside(path, "-wal"), reason: error.to_string() };
        Ok(Durability(Arc::new(State {
            path: path.to_owned(),
            disk,
            write_ahead_log: open().map_err(unusable)?,
            announced: AtomicU64::new(0),
            written: AtomicU64::new(0),
            synced: Mutex::default(),
        })))
    }

    /// Runs `commit`, the writer's, whose transaction readers may see before it returns.
    pub fn written<T>(&self, commit: impl FnOnce() -> T) -> T {
        let number = self.0.announced.fetch_add(1, Ordering::SeqCst) + 1;
        let result = commit();
        // Also if it failed: then there is nothing to be synced.
        self.0.written.store(number, Ordering::SeqCst);
        result
    }

    /// Makes all that is written durable.
    ///
    /// After a sync that failed another one would say that all is well, and prove nothing. So all of the write-ahead log is
    /// moved to the file then, and only if that is synced, too, are its transactions durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        let state = &*self.0;
        let written = state.written.load(Ordering::SeqCst);
        let (count, is_broken) = {
            let synced = state.synced();
            (synced.count, synced.is_broken)
        };
        if count == written {
            return Ok(());
        }
        let outcome = match is_broken {
            false => state.write_ahead_log.sync_data().map_err(|error| StoreError::Unavailable(error.to_string())),
            true => state.move_to_file(),
        };
        let mut synced = state.synced();
        synced.is_broken = outcome.is_err();
        match outcome {
            Ok(()) => {
                synced.count = written;
                for (_, waiting) in synced.waiting.extract_if(.., |(number, _)| *number <= written) {
                    // Who does not wait any more does not hear it.
                    let _ = waiting.send(());
                }
            }
            // They are told by the end of their channels.
            Err(_) => synced.waiting.clear(),
        }
        outcome
    }

    /// [`sync`](Durability::sync), for a group commit.
    pub fn syncer(&self) -> Syncer {
        let durability = self.clone();
        Box::new(move || durability.sync())
    }

    /// Waits until all that was visible when this is called is durable.
    pub(super) async fn wait(&self) -> Result<(), StoreError> {
        match self.0.waiting() {
            None => Ok(()),
            Some(durable) => durable.await.map_err(|_| not_durable()),
        }
    }

    /// As [`wait`](Durability::wait), for a thread that may block.
    pub fn wait_blocking(&self) -> Result<(), StoreError> {
        match self.0.waiting() {
            None => Ok(()),
            Some(durable) => durable.blocking_recv().map_err(|_| not_durable()),
        }
    }
}

impl State {
    fn synced(&self) -> MutexGuard<'_, Synced> {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> Option<oneshot::Receiver<()>> {
        let visible = self.announced.load(Ordering::SeqCst);
        let mut synced = self.synced();
        (synced.count < visible).then(|| {
            let (sender, receiver) = oneshot::channel();
            synced.waiting.push((visible, sender));
            receiver
        })
    }

    fn move_to_file(&self) -> Result<(), StoreError> {
        if self.disk.has_failed() {
            return Err(StoreError::Unavailable("the disk has failed; a restart moves the write-ahead log".to_owned()));
        }
        let connection = open_writer(&self.path).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        connection.busy_timeout(MOVE_PATIENCE)?;
        let moved = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        let is_incomplete: bool = moved.inspect_err(|error| self.disk.note(error))?;
        match is_incomplete {
            false => Ok(()),
            true => Err(StoreError::Unavailable("the write-ahead log cannot be moved to the file".to_owned())),
        }
    }
}

fn not_durable() -> StoreError {
    StoreError::Unavailable("what was read is not durable".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{Schema, SqliteFile};

    const SCHEMA: Schema = Schema { application_id: 7, owner: "test", migrations: &["CREATE TABLE one (n INTEGER)"] };

    #[test]
    fn what_was_written_is_waited_for_until_a_sync_that_began_later() {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteFile::open(&folder.path().join("file.db"), &SCHEMA).unwrap();
        let (connection, durability) = file.group_writer().unwrap();
        let write = || durability.written(|| connection.execute("INSERT INTO one VALUES (1)", []));
        durability.wait_blocking().expect("nothing is written");
        write().unwrap();
        let mut waiting = durability.0.waiting().expect("it is not durable yet");
        assert!(waiting.try_recv().is_err());
        durability.sync().unwrap();
        waiting.try_recv().expect("it is durable");
        durability.wait_blocking().expect("all is durable");
        // One that readers may see already, and whose commit has not returned while a sync ran.
        let mut waiting = durability.written(|| {
            durability.sync().unwrap();
            durability.0.waiting().expect("it may be seen")
        });
        assert!(waiting.try_recv().is_err(), "the sync may have come before the commit");
        durability.sync().unwrap();
        waiting.try_recv().expect("it is durable");
    }

    #[test]
    fn a_commit_that_failed_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteFile::open(&folder.path().join("file.db"), &SCHEMA).unwrap();
        let (connection, durability) = file.group_writer().unwrap();
        durability.written(|| connection.execute("INSERT INTO two VALUES (1)", [])).unwrap_err();
        durability.sync().unwrap();
        durability.wait_blocking().expect("nothing is written");
    }

    #[test]
    fn after_a_failed_sync_nothing_is_durable_until_all_of_it_is_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        let file = SqliteFile::open(&path, &SCHEMA).unwrap();
        let (connection, durability) = file.group_writer().unwrap();
        durability.written(|| connection.execute("INSERT INTO one VALUES (1)", [])).unwrap();
        let mut waiting = durability.0.waiting().expect("it is not durable yet");
        durability.0.synced().is_broken = true;
        // A reader in the middle of a transaction keeps the log from being moved as a whole.
        let mut reader = file.reader().unwrap();
        reader.busy_timeout(std::time::Duration::ZERO).unwrap();
        let reading = reader.transaction().unwrap();
        let count = |connection: &rusqlite::Connection| {
            connection.query_row("SELECT count(*) FROM one", [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(count(&reading), 1);
        durability.written(|| connection.execute("INSERT INTO one VALUES (2)", [])).unwrap();
        let error = durability.sync().unwrap_err().to_string();
        assert!(error.contains("cannot be moved"), "{error}");
        assert!(matches!(waiting.try_recv(), Err(oneshot::error::TryRecvError::Closed)), "it is told");
        drop(reading);
        durability.sync().expect("nobody reads");
        durability.wait_blocking().expect("all is in the file");
        assert_eq!(std::fs::metadata(beside(&path, "-wal")).unwrap().len(), 0, "and none is in the log");
        assert_eq!(count(&reader), 2);
    }
}
