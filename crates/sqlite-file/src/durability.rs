//! Which commits to a SQLite file are durable, where one thread commits and another one syncs.
//!
//! With `synchronous=NORMAL` a commit appends to the write-ahead log without an fsync; `FULL` adds only that fsync. The
//! group commit syncs the log on a second thread, beside the next commit, and answers a request after the sync. Readers see a
//! commit before its sync, so they wait for that sync before they return a result: no answer and no event shows what a
//! power loss could undo (ARCHITECTURE.md A2, B1).

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use group_commit::{StoreError, Syncer};
use rusqlite::Transaction;
use tokio::sync::watch;

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
    /// The number of durable transactions. Requests and threads wait for it to grow.
    synced: watch::Sender<u64>,
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
        Durability(Arc::new(State { file, write_ahead_log, visible, committed, synced: watch::Sender::default() }))
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
        if *synced.borrow() == committed {
            return Ok(());
        }
        let result = match file.fail_stop().has_failed() {
            true => Err(storage_failed()),
            false => write_ahead_log.sync_data().map_err(|error| {
                file.fail_stop().trigger(file.name(), &error);
                storage_failed()
            }),
        };
        // After a failure the count stays, and those who wait find the failure.
        synced.send_modify(|count| *count = if result.is_ok() { committed } else { *count });
        result
    }

    /// [`sync`](Durability::sync), for a group commit.
    pub fn syncer(&self) -> Syncer {
        let durability = self.clone();
        Box::new(move || durability.sync())
    }

    /// Waits until everything is durable that is visible at the call.
    pub(crate) async fn wait(&self) -> Result<(), StoreError> {
        let visible = self.0.visible.load(Ordering::SeqCst);
        let is_over = |count: &u64| *count >= visible || self.0.file.fail_stop().has_failed();
        match self.0.synced.subscribe().wait_for(is_over).await {
            Ok(count) if *count >= visible => Ok(()),
            _ => Err(StoreError::Unavailable("what was read is not durable".to_owned())),
        }
    }

    /// Like [`wait`](Durability::wait), for a thread that may block.
    pub fn wait_blocking(&self) -> Result<(), StoreError> {
        pollster::block_on(self.wait())
    }
}

pub(crate) fn storage_failed() -> StoreError {
    StoreError::Unavailable("the storage failed, and the process stops".to_owned())
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::{Schema, SqliteFile};

    /// Polls a wait once.
    fn polled(wait: Pin<&mut impl Future<Output = Result<(), StoreError>>>) -> Poll<Result<(), StoreError>> {
        wait.poll(&mut Context::from_waker(Waker::noop()))
    }

    const SCHEMA: Schema = Schema { application_id: 7, owner: "test", migrations: &["CREATE TABLE one (n INTEGER)"] };

    #[test]
    fn what_was_written_is_waited_for_until_a_sync_that_began_later() {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteFile::open(&folder.path().join("file.db"), &SCHEMA).unwrap();
        let (connection, durability) = file.group_writer().unwrap();
        let write = || durability.counted(|| connection.execute("INSERT INTO one VALUES (1)", []));
        durability.wait_blocking().expect("nothing is written");
        write().unwrap();
        let mut waiting = pin!(durability.wait());
        assert!(polled(waiting.as_mut()).is_pending(), "it is not durable yet");
        durability.sync().unwrap();
        assert!(matches!(polled(waiting.as_mut()), Poll::Ready(Ok(()))), "it is durable");
        durability.wait_blocking().expect("all is durable");
        // Readers may see a transaction whose commit has not returned while a sync ran.
        let mut waiting = pin!(durability.wait());
        durability.counted(|| {
            durability.sync().unwrap();
            assert!(polled(waiting.as_mut()).is_pending(), "readers may see it");
        });
        assert!(polled(waiting.as_mut()).is_pending(), "the sync may have come before the commit");
        durability.sync().unwrap();
        assert!(matches!(polled(waiting.as_mut()), Poll::Ready(Ok(()))), "it is durable");
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
        // The kernel cannot sync this file and returns an error.
        let failing = Durability::of(durability.0.file.clone(), File::open("/dev/null").unwrap());
        let mut insert = || {
            let transaction = connection.transaction().unwrap();
            transaction.execute("INSERT INTO one VALUES (1)", []).unwrap();
            failing.commit(transaction)
        };
        insert().unwrap();
        let mut waiting = Box::pin(failing.wait());
        assert!(polled(waiting.as_mut()).is_pending(), "it is not durable yet");
        failing.sync().unwrap_err();
        assert!(matches!(polled(waiting.as_mut()), Poll::Ready(Err(_))), "nobody is left waiting");
        drop(waiting);
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
