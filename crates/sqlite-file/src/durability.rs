//! Which commits to a SQLite file are durable, where one thread commits and another one syncs.
//!
//! With `synchronous=NORMAL` a commit appends to the write-ahead log without an fsync, which is all that `FULL` adds. The
//! group commit syncs the log on a second thread, beside the next commit, and answers a request after the sync. Readers see a
//! commit before its sync, so they wait for that sync before they return a result: no answer and no event shows what a
//! power loss could undo (ARCHITECTURE.md A2, B1).

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use group_commit::{StoreError, Syncer};
use parking_lot::Mutex;
use rusqlite::Transaction;
use tokio::sync::oneshot;

use crate::{DatabaseFile, OpenError};

/// Tracks how far one writer's commits to a file are durable. Clones track the same writer.
#[derive(Clone)]
pub struct Durability(Arc<State>);

struct State {
    file: DatabaseFile,
    write_ahead_log: File,
    /// The number of transactions that readers may see. Counted before the commit.
    visible: AtomicU64,
    /// The number of transactions whose commit has returned.
    committed: AtomicU64,
    synced: Mutex<Synced>,
}

#[derive(Default)]
struct Synced {
    /// The number of durable transactions.
    count: u64,
    /// Requests and threads that wait until this many transactions are durable.
    waiting: Vec<(u64, oneshot::Sender<()>)>,
}

impl Durability {
    /// For the writer of `file`, which is in WAL mode and has a connection.
    pub(crate) fn open(file: &DatabaseFile) -> Result<Self, OpenError> {
        let path = file.beside("-wal");
        let write_ahead_log = File::open(&path).map_err(|error| OpenError::unusable(&path, error))?;
        Ok(Durability::of(file.clone(), write_ahead_log))
    }

    fn of(file: DatabaseFile, write_ahead_log: File) -> Self {
        let (visible, committed) = (AtomicU64::new(0), AtomicU64::new(0));
        Durability(Arc::new(State { file, write_ahead_log, visible, committed, synced: Mutex::default() }))
    }

    /// Commits a transaction of the writer. Readers see it at once and wait for the next [`sync`](Durability::sync).
    pub fn commit(&self, transaction: Transaction<'_>) -> Result<(), StoreError> {
        self.counted(|| self.commit_unseen(transaction))
    }

    /// Like [`commit`](Durability::commit), for a transaction that no reader and no caller waits for. A later sync makes it
    /// durable too.
    pub fn commit_unseen(&self, transaction: Transaction<'_>) -> Result<(), StoreError> {
        if self.0.file.fail_stop().has_failed() {
            return Err(storage_failed());
        }
        Ok(self.0.file.check(transaction.commit())?)
    }

    /// Runs `commit` and counts its transaction, before and after. A failed commit counts too, and needs no sync.
    fn counted<T>(&self, commit: impl FnOnce() -> T) -> T {
        let number = self.0.visible.fetch_add(1, Ordering::SeqCst) + 1;
        let result = commit();
        self.0.committed.store(number, Ordering::SeqCst);
        result
    }

    /// Makes all committed transactions durable. A failed fsync stops the process ([`FailStop`](crate::FailStop)).
    pub fn sync(&self) -> Result<(), StoreError> {
        let State { file, write_ahead_log, committed, synced, .. } = &*self.0;
        let committed = committed.load(Ordering::SeqCst);
        if synced.lock().count == committed {
            return Ok(());
        }
        let result = match file.fail_stop().has_failed() {
            true => Err(storage_failed()),
            false => write_ahead_log.sync_data().map_err(|error| {
                file.fail_stop().trigger(file.name(), &error);
                storage_failed()
            }),
        };
        let mut synced = synced.lock();
        match result {
            Ok(()) => {
                synced.count = committed;
                for (_, waiting) in synced.waiting.extract_if(.., |(number, _)| *number <= committed) {
                    let _ = waiting.send(()); // a request may have been cancelled
                }
            }
            // Dropping the channels tells those who wait.
            Err(_) => synced.waiting.clear(),
        }
        result
    }

    /// [`sync`](Durability::sync), for a group commit.
    pub fn syncer(&self) -> Syncer {
        let durability = self.clone();
        Box::new(move || durability.sync())
    }

    /// Waits until everything is durable that is visible at the call.
    pub(crate) async fn wait(&self) -> Result<(), StoreError> {
        match self.0.waiting() {
            None => Ok(()),
            Some(durable) => durable.await.map_err(|_| not_durable()),
        }
    }

    /// Like [`wait`](Durability::wait), for a thread that may block.
    pub fn wait_blocking(&self) -> Result<(), StoreError> {
        match self.0.waiting() {
            None => Ok(()),
            Some(durable) => durable.blocking_recv().map_err(|_| not_durable()),
        }
    }
}

impl State {
    /// Returns what ends when everything visible is durable, or `None` if it is.
    fn waiting(&self) -> Option<oneshot::Receiver<()>> {
        let visible = self.visible.load(Ordering::SeqCst);
        let mut synced = self.synced.lock();
        (synced.count < visible).then(|| {
            let (sender, receiver) = oneshot::channel();
            // After a failure no sync follows; dropping the sender tells the receiver.
            if !self.file.fail_stop().has_failed() {
                synced.waiting.push((visible, sender));
            }
            receiver
        })
    }
}

pub(crate) fn storage_failed() -> StoreError {
    StoreError::Unavailable("the storage failed, and the process stops".to_owned())
}

fn not_durable() -> StoreError {
    StoreError::Unavailable("what was read is not durable".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Schema, SqliteFile};

    const SCHEMA: Schema = Schema { application_id: 7, owner: "test", migrations: &["CREATE TABLE one (n INTEGER)"] };

    #[test]
    fn what_was_written_is_waited_for_until_a_sync_that_began_later() {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteFile::open(&folder.path().join("file.db"), &SCHEMA).unwrap();
        let (connection, durability) = file.group_writer().unwrap();
        let write = || durability.counted(|| connection.execute("INSERT INTO one VALUES (1)", []));
        durability.wait_blocking().expect("nothing is written");
        write().unwrap();
        let mut waiting = durability.0.waiting().expect("it is not durable yet");
        assert!(waiting.try_recv().is_err());
        durability.sync().unwrap();
        waiting.try_recv().expect("it is durable");
        durability.wait_blocking().expect("all is durable");
        // One that readers may see already, and whose commit has not returned while a sync ran.
        let mut waiting = durability.counted(|| {
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
        durability.counted(|| connection.execute("INSERT INTO two VALUES (1)", [])).unwrap_err();
        durability.sync().unwrap();
        durability.wait_blocking().expect("nothing is written");
    }

    #[tokio::test]
    async fn a_sync_that_fails_stops_the_process_and_nothing_is_acknowledged_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        let file = SqliteFile::open(&path, &SCHEMA).unwrap();
        let (mut connection, durability) = file.group_writer().unwrap();
        // The system syncs no such file, and says so.
        let failing = Durability::of(durability.0.file.clone(), File::open("/dev/null").unwrap());
        let mut insert = || {
            let transaction = connection.transaction().unwrap();
            transaction.execute("INSERT INTO one VALUES (1)", []).unwrap();
            failing.commit(transaction)
        };
        insert().unwrap();
        let mut waiting = failing.0.waiting().expect("it is not durable yet");
        failing.sync().unwrap_err();
        assert!(matches!(waiting.try_recv(), Err(oneshot::error::TryRecvError::Closed)), "nobody is left waiting");
        let cause = file.fail_stop().failed().await.to_string();
        assert!(cause.contains("file.db failed"), "{cause}");
        insert().unwrap_err();
        failing.sync().expect_err("a second sync would prove nothing");
        failing.wait().await.expect_err("what is visible is not durable");
        drop((failing, durability, connection));
        file.close().unwrap();
        drop(file);
        let file = SqliteFile::open(&path, &SCHEMA).unwrap();
        let count =
            file.reader().unwrap().query_row("SELECT count(*) FROM one", [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(count, 1, "the restart recovers the write-ahead log");
    }
}
