//! The connections that handlers read with.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::{Durability, SharedConnection, SqliteFile};
use crate::{FailStop, OpenError};
use group_commit::{Health, StoreError};

/// Read connections of a [`ReadPool`]: as many look-ups as run at once. They are short, and the cores are few.
const READ_CONNECTIONS: usize = 4;

/// How often it is tried whether anything can be read, while the last read has failed. No request need be spent on it:
/// `/readyz` may keep them away.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// What is read then: the tables that there are.
const PROBE: &str = "SELECT count(*) FROM sqlite_schema";

/// A few read connections that handlers share. All are open from the start on, so that a process without file descriptors
/// can still read.
#[derive(Clone)]
pub struct ReadPool(Arc<Pool>);

struct Pool {
    permits: Arc<Semaphore>,
    connections: Vec<SharedConnection>,
    durability: Durability,
    file: SqliteFile,
    health: Health,
}

impl ReadPool {
    pub(super) fn open(file: &SqliteFile, durability: Durability) -> Result<Self, OpenError> {
        let connections = (0..READ_CONNECTIONS).map(|_| file.shared_reader()).collect::<Result<_, _>>()?;
        let permits = Arc::new(Semaphore::new(READ_CONNECTIONS));
        let health = Health::new("a read of the database failed", "the database can be read again");
        Ok(ReadPool(Arc::new(Pool { permits, connections, durability, file: file.clone(), health })))
    }

    /// Runs `query` in one read transaction on a thread that may block, so that all it reads is of one moment. The result
    /// is returned when all that was read is durable.
    pub async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (read, is_new_failure) = self.read_and_note(query).await;
        if is_new_failure {
            tokio::spawn(probe(Arc::downgrade(&self.0)));
        }
        let read = read?;
        self.0.durability.wait().await?;
        Ok(read)
    }

    /// Returns whether nothing can be read from now on, too.
    async fn read_and_note<T, F>(&self, query: F) -> (Result<T, StoreError>, bool)
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let Ok(permit) = Arc::clone(&self.0.permits).acquire_owned().await else {
            return (Err(StoreError::Stopping), false);
        };
        let pool = Arc::clone(&self.0);
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            pool.run(query)
        });
        let read = reading.await.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())));
        let is_new_failure = match &read {
            Ok(_) => self.0.health.note(Ok::<_, &StoreError>(())),
            Err(error @ StoreError::Unavailable(_)) => self.0.health.note(Err::<(), _>(error)),
            Err(_) => false,
        };
        (read, is_new_failure)
    }

    /// Why nothing can be read now, if so.
    pub fn failure(&self) -> Option<String> {
        self.0.health.failure()
    }

    /// Why some reads fail, if so.
    pub fn warning(&self) -> Option<String> {
        self.0.health.warning()
    }

    /// What ends the process when the storage of the file fails.
    pub fn fail_stop(&self) -> &FailStop {
        self.0.file.fail_stop()
    }

    /// Waits for the reads that have begun, and closes the file ([`SqliteFile::close`]). For a thread that may block.
    pub fn close(&self) -> Result<(), StoreError> {
        self.0.file.close()
    }
}

impl Pool {
    fn run<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let free = self.connections.iter().find_map(SharedConnection::try_lock);
        // There is a free one for each permit, unless they change hands meanwhile.
        let Some(mut connection) = free.or_else(|| Some(self.connections.first()?.lock())) else {
            return Err(StoreError::Stopping);
        };
        let Some(connection) = connection.as_mut() else { return Err(StoreError::Stopping) };
        let transaction = connection.transaction()?;
        Ok(query(&transaction)?)
    }
}

/// Reads now and then until a read works, or `pool` is gone.
async fn probe(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(PROBE_INTERVAL).await;
        let Some(pool) = pool.upgrade().map(ReadPool) else { return };
        let (read, _) = pool.read_and_note(|connection| connection.query_row(PROBE, [], |_| Ok(()))).await;
        if matches!(read, Ok(()) | Err(StoreError::Stopping)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use crate::Schema;

    use super::*;

    const SCHEMA: Schema = Schema { application_id: 7, owner: "test", migrations: &["CREATE TABLE one (n INTEGER)"] };

    fn open() -> (tempfile::TempDir, SqliteFile, ReadPool) {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteFile::open(&folder.path().join("file.db"), &SCHEMA).unwrap();
        let (_, durability) = file.group_writer().unwrap();
        let pool = file.read_pool(durability).unwrap();
        (folder, file, pool)
    }

    fn count(connection: &Connection) -> rusqlite::Result<i64> {
        connection.query_row("SELECT count(*) FROM one", [], |row| row.get(0))
    }

    #[tokio::test]
    async fn as_many_read_as_before_after_queries_that_panic() {
        let (_folder, _file, pool) = open();
        for _ in 0..=READ_CONNECTIONS {
            let failed = pool.read::<(), _>(|_| panic!("the test's own")).await;
            assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
        }
        for _ in 0..=READ_CONNECTIONS {
            assert_eq!(pool.read(count).await.unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn a_read_that_fails_is_a_failure_until_the_probe_reads_and_a_warning_then() {
        let (_folder, _file, pool) = open();
        let failed = pool.read(|connection| connection.execute("DELETE FROM one", [])).await.unwrap_err();
        assert_eq!(pool.failure(), Some(failed.to_string()));
        let began = Instant::now();
        while pool.failure().is_some() {
            assert!(began.elapsed() < PROBE_INTERVAL * 30, "nobody has tried again");
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.warning(), Some(failed.to_string()), "others may fail still");
    }

    #[tokio::test]
    async fn nothing_is_read_after_the_file_is_closed() {
        let (folder, _file, pool) = open();
        assert_eq!(pool.read(count).await.unwrap(), 0);
        pool.close().unwrap();
        assert!(matches!(pool.read(count).await, Err(StoreError::Stopping)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the database alone is left");
    }
}
