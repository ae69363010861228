//! The connections that request handlers read with.

use std::sync::{Arc, Weak};
use std::time::Duration;

use group_commit::{Health, StoreError};
use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::{Durability, FailStop, OpenError, SharedConnection, SqliteFile};

/// The number of concurrent reads. Reads are short, and the cores are few.
const READ_CONNECTIONS: usize = 4;

/// How often a probe reads after a failed read. `/readyz` may keep requests away, so none of them would find the recovery.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The query of the probe.
const PROBE: &str = "SELECT count(*) FROM sqlite_schema";

/// A few read connections, shared by all handlers. All are opened at the start, so that reads work without free file
/// descriptors. Clones share the connections.
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
    pub(crate) fn open(file: &SqliteFile, durability: Durability) -> Result<Self, OpenError> {
        let connections = (0..READ_CONNECTIONS).map(|_| file.shared_reader()).collect::<Result<_, _>>()?;
        let permits = Arc::new(Semaphore::new(READ_CONNECTIONS));
        let health = Health::new("a read of the database failed", "the database can be read again");
        Ok(ReadPool(Arc::new(Pool { permits, connections, durability, file: file.clone(), health })))
    }

    /// Runs `query` in one read transaction on a blocking thread. Returns the result once everything read is durable.
    pub async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (result, is_new_failure) = self.read_and_record(query).await;
        if is_new_failure {
            tokio::spawn(probe(Arc::downgrade(&self.0)));
        }
        let result = result?;
        self.0.durability.wait().await?;
        Ok(result)
    }

    /// Also returns whether this is the first failure since the last success.
    async fn read_and_record<T, F>(&self, query: F) -> (Result<T, StoreError>, bool)
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
            // Each permit has a free connection, unless connections change hands during the search.
            let free = pool.connections.iter().find(|connection| !connection.is_busy());
            let connection = free.or(pool.connections.first()).ok_or(StoreError::Stopping)?;
            connection.run(|connection| query(&*connection.unchecked_transaction()?))
        });
        let result = reading.await.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())));
        let is_new_failure = match &result {
            Ok(_) | Err(StoreError::Unavailable(_)) => self.0.health.record(result.as_ref()),
            Err(_) => false,
        };
        (result, is_new_failure)
    }

    /// The error of the last read, if it failed.
    pub fn failure(&self) -> Option<String> {
        self.0.health.failure()
    }

    /// The error of a recent read, if others have succeeded since.
    pub fn warning(&self) -> Option<String> {
        self.0.health.warning()
    }

    /// What stops the process when the storage of the file fails.
    pub fn fail_stop(&self) -> &FailStop {
        self.0.file.fail_stop()
    }

    /// Waits for the running reads and closes the file ([`SqliteFile::close`]). For a thread that may block.
    pub fn close(&self) -> Result<(), StoreError> {
        self.0.file.close()
    }
}

/// Reads until a read succeeds or `pool` is gone.
async fn probe(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(PROBE_INTERVAL).await;
        let Some(pool) = pool.upgrade().map(ReadPool) else { return };
        let (result, _) = pool.read_and_record(|connection| connection.query_row(PROBE, [], |_| Ok(()))).await;
        if matches!(result, Ok(()) | Err(StoreError::Stopping)) {
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
