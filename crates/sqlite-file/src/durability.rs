//! Which commits to a SQLite file are durable, where one thread writes them and another one syncs them.
//!
//! With `synchronous=NORMAL` a commit is in the write-ahead log when it returns, whole and in order, and a power cut may take
//! it back until the log is synced: that sync is all that `FULL` adds. Here it is done beside the next commit, and
//! whoever waits for a commit waits for the sync behind it. Readers see a commit before that, so they wait, too, until what they
//! saw is durable: nobody is told, and no event tells, what a power cut would take back (ARCHITECTURE.md A2, B1).

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Transaction;
use tokio::sync::oneshot;

use crate::{DatabaseFile, OpenError};
use group_commit::{StoreError, Syncer};

/// How far one writer's commits to a file are durable. Clones are of the same writer.
#[derive(Clone)]
pub struct Durability(Arc<State>);

struct State {
    file: DatabaseFile,
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
    /// Those who wait until so many are durable. Each stands for a request or a thread.
    waiting: Vec<(u64, oneshot::Sender<()>)>,
}

impl Durability {
    /// Of `file`, which has a connection in WAL mode.
    pub(super) fn open(file: &DatabaseFile) -> Result<Self, OpenError> {
        let path = file.beside("-wal");
        let opened = File::open(&path);
        let write_ahead_log = opened.map_err(|error| OpenError::Unusable { path, reason: error.to_string() })?;
        Ok(Durability::of(file.clone(), write_ahead_log))
    }

    fn of(file: DatabaseFile, write_ahead_log: File) -> Self {
        Durability(Arc::new(State {
            file,
            write_ahead_log,
            announced: AtomicU64::new(0),
            written: AtomicU64::new(0),
            synced: Mutex::default(),
        }))
    }

    /// Commits `transaction`, the writer's. Readers may see it before this returns, and wait for the next
    /// [`sync`](Durability::sync).
    pub fn commit(&self, transaction: Transaction<'_>) -> Result<(), StoreError> {
        self.written(|| self.commit_unseen(transaction))
    }

    /// As [`commit`](Durability::commit), for what no reader and no caller waits for: a later sync makes it durable, too.
    pub fn commit_unseen(&self, transaction: Transaction<'_>) -> Result<(), StoreError> {
        if self.0.file.fail_stop().has_failed() {
            return Err(storage_failed());
        }
        Ok(self.0.file.check(transaction.commit())?)
    }

    /// Runs `commit`, whose transaction readers may see before it returns.
    fn written<T>(&self, commit: impl FnOnce() -> T) -> T {
        let number = self.0.announced.fetch_add(1, Ordering::SeqCst) + 1;
        let result = commit();
        // Also if it failed: then there is nothing to be synced.
        self.0.written.store(number, Ordering::SeqCst);
        result
    }

    /// Makes all that is written durable. A sync that fails stops the process ([`crate::FailStop`]).
    pub fn sync(&self) -> Result<(), StoreError> {
        let state = &*self.0;
        let written = state.written.load(Ordering::SeqCst);
        if state.synced().count == written {
            return Ok(());
        }
        let fail_stop = state.file.fail_stop();
        let outcome = match fail_stop.has_failed() {
            true => Err(storage_failed()),
            false => state.write_ahead_log.sync_data().map_err(|error| {
                fail_stop.trigger(state.file.name(), &error);
                storage_failed()
            }),
        };
        let mut synced = state.synced();
        match outcome {
            Ok(()) => {
                synced.count = written;
                for (_, waiting) in synced.waiting.extract_if(.., |(number, _)| *number <= written) {
                    // Who does not wait any more does not hear it.
                    let _ = waiting.send(());
                }
            }
            // The end of their channels tells them.
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
            // After a failure there is no sync to wait for.
            if !self.file.fail_stop().has_failed() {
                synced.waiting.push((visible, sender));
            }
            receiver
        })
    }
}

pub(super) fn storage_failed() -> StoreError {
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
