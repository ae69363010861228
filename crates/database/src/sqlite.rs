//! A SQLite file that one process owns: durable at every commit, migrated when opened, read while it is written.

mod disk;
mod durability;
mod mover;
mod write_back;

use std::cmp::Ordering;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::Semaphore;

pub use self::durability::Durability;
use crate::{OpenError, StoreError};

/// Read connections of a [`ReadPool`]: as many look-ups as run at once. They are short, and the cores are few.
const READ_CONNECTIONS: usize = 4;

/// Statements kept prepared by a connection: more than a service has.
const PREPARED_STATEMENTS: usize = 64;

/// Memory for the pages of one connection, in KiB, taken as it is used: more than the inner pages of ten million accounts and cards, so
/// that of a page anywhere among them only its rows come from disk. The system's own page cache holds the rest.
const PAGE_CACHE_KIB: i64 = 16 * 1_024;

/// The write-ahead log is cut back to this when it has been written to the file, in bytes.
const WAL_KEEP_BYTES: i64 = 32 * 1_024 * 1_024;

/// How long opening waits for whoever only looks whether the file is in use.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);

/// How long until the lock is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How long a connection waits for another one's lock: a transaction's beside the writer's, which is as long as a sync.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Whose file it is and how it came to be.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// SQLite's `application_id`, so that a service never takes another's file for its own.
    pub application_id: i32,
    /// Whose file it is, for a person: `account service`.
    pub owner: &'static str,
    /// The SQL of each version; a file at version `n` has had the first `n`. Never change one that has been released.
    pub migrations: &'static [&'static str],
}

/// An open file. The lock on it lasts as long as this and all that was made of it.
#[derive(Debug, Clone)]
pub struct SqliteFile {
    path: Arc<Path>,
    _lock: Arc<File>,
}

impl SqliteFile {
    /// Opens the file at `path`, makes it (and its folder) if it is missing, takes the lock, and brings it to the last
    /// version of `schema`, each step in a transaction of its own.
    pub fn open(path: &Path, schema: &Schema) -> Result<Self, OpenError> {
        let unusable =
            |reason: std::io::Error| OpenError::Unusable { path: path.to_owned(), reason: reason.to_string() };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(unusable)?;
        }
        let lock =
            File::options().create(true).truncate(false).write(true).open(beside(path, ".lock")).map_err(unusable)?;
        let began = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if began.elapsed() < LOCK_PATIENCE => thread::park_timeout(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(path.to_owned())),
                Err(TryLockError::Error(error)) => return Err(unusable(error)),
            }
        }
        let file = SqliteFile { path: path.into(), _lock: Arc::new(lock) };
        let mut connection = file.writer()?;
        migrate(&mut connection, schema, path)?;
        Ok(file)
    }

    /// A connection that writes to a file of exactly this schema which another process may have. It is for what no process
    /// keeps in memory, but looks up in the file.
    pub fn connect_beside(path: &Path, schema: &Schema) -> Result<Connection, OpenError> {
        if let Err(error) = std::fs::metadata(path) {
            return Err(OpenError::Unusable { path: path.to_owned(), reason: error.to_string() });
        }
        let connection = open_writer(path)?;
        let (found, known) = (check_owner(&connection, schema, path)?, schema.migrations.len());
        match found.cmp(&known) {
            Ordering::Equal => Ok(connection),
            Ordering::Greater => Err(OpenError::Newer { path: path.to_owned(), found, known }),
            Ordering::Less => Err(OpenError::Older { path: path.to_owned(), found, known }),
        }
    }

    /// Whether a process has the file at `path`.
    pub fn is_in_use(path: &Path) -> bool {
        let lock = File::options().write(true).open(beside(path, ".lock"));
        lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// A connection that writes. Its commits are durable when they return: `synchronous=FULL` (ARCHITECTURE.md A2, B1).
    pub fn writer(&self) -> Result<Connection, OpenError> {
        open_writer(&self.path)
    }

    /// A connection whose commits are durable once [`Durability::sync`] says so: the one that a group commit writes with. What
    /// it has written is moved to the file beside its commits.
    pub fn group_writer(&self) -> Result<(Connection, Durability), OpenError> {
        let mut connection = open_writer(&self.path)?;
        connection.pragma_update(None, "synchronous", "normal").map_err(|error| open_error(&self.path, &error))?;
        let disk = Arc::default();
        mover::move_beside(&mut connection, &self.path, &disk)?;
        Ok((connection, Durability::open(&self.path, disk)?))
    }

    /// A connection that only reads, and sees each commit as soon as it is written.
    pub fn reader(&self) -> Result<Connection, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).and_then(|connection| {
            configure(&connection)?;
            Ok(connection)
        });
        connection.map_err(|error| open_error(&self.path, &error))
    }

    /// Readers for handlers, of what the writer with this `durability` writes.
    pub fn read_pool(&self, durability: Durability) -> ReadPool {
        let (permits, connections) = (Arc::new(Semaphore::new(READ_CONNECTIONS)), Arc::default());
        ReadPool { permits, connections, durability, file: self.clone() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A few read connections that handlers share. They are opened when there is something to read: a start takes no time for them.
#[derive(Clone)]
pub struct ReadPool {
    permits: Arc<Semaphore>,
    /// Those that are open and have nothing to do.
    connections: Arc<Mutex<Vec<Connection>>>,
    durability: Durability,
    file: SqliteFile,
}

impl ReadPool {
    /// Runs `query` in one read transaction on a thread that may block, so that all it reads is of one moment. It is given
    /// when all that was read is durable.
    pub async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::Stopping)?;
        let (file, pool) = (self.file.clone(), Arc::clone(&self.connections));
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let lock = || pool.lock().unwrap_or_else(PoisonError::into_inner);
            let idle = lock().pop();
            let opened = idle.map_or_else(|| file.reader(), Ok);
            let mut connection = opened.map_err(|error| StoreError::Unavailable(error.to_string()))?;
            let result = connection.transaction().and_then(|transaction| query(&transaction));
            lock().push(connection);
            Ok(result?)
        });
        let read = reading.await.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))?;
        self.durability.wait().await?;
        Ok(read)
    }
}

/// The file whose name is that of `path` with `suffix`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    let connection = Connection::open(path).and_then(|connection| {
        configure(&connection)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "journal_size_limit", WAL_KEEP_BYTES)?;
        connection.pragma_update(None, "foreign_keys", "on")?;
        Ok(connection)
    });
    connection.map_err(|error| open_error(path, &error))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(PREPARED_STATEMENTS);
    connection.pragma_update(None, "cache_size", -PAGE_CACHE_KIB)
}

/// Checks whose file it is, and gives the version of its schema.
fn check_owner(connection: &Connection, schema: &Schema, path: &Path) -> Result<usize, OpenError> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let read = || {
        Ok((
            number("PRAGMA application_id")?,
            number("PRAGMA user_version")?,
            number("SELECT count(*) FROM sqlite_schema")?,
        ))
    };
    let (application_id, version, tables) = read().map_err(|error: rusqlite::Error| open_error(path, &error))?;
    if tables > 0 && application_id != i64::from(schema.application_id) {
        return Err(OpenError::Foreign { path: path.to_owned(), owner: schema.owner });
    }
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

fn migrate(connection: &mut Connection, schema: &Schema, path: &Path) -> Result<(), OpenError> {
    let failed = |error: rusqlite::Error| open_error(path, &error);
    let version = check_owner(connection, schema, path)?;
    if version > schema.migrations.len() {
        return Err(OpenError::Newer { path: path.to_owned(), found: version, known: schema.migrations.len() });
    }
    for (index, sql) in schema.migrations.iter().enumerate().skip(version) {
        let step = connection.transaction().and_then(|transaction| {
            transaction.execute_batch(sql)?;
            transaction.pragma_update(None, "application_id", schema.application_id)?;
            transaction.pragma_update(None, "user_version", index as i64 + 1)?;
            transaction.commit()
        });
        step.map_err(failed)?;
    }
    Ok(())
}

fn open_error(path: &Path, error: &rusqlite::Error) -> OpenError {
    let (path, reason) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, reason },
        _ => OpenError::Unusable { path, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: Schema = Schema {
        application_id: 7,
        owner: "test",
        migrations: &["CREATE TABLE one (n INTEGER)", "ALTER TABLE one ADD COLUMN m INTEGER"],
    };

    fn refused(path: &Path, schema: &Schema) -> String {
        SqliteFile::open(path, schema).expect_err("refused").to_string()
    }

    #[test]
    fn a_file_is_migrated_from_whatever_version_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/file.db");
        drop(SqliteFile::open(&path, &Schema { migrations: &SCHEMA.migrations[..1], ..SCHEMA }).unwrap());
        let file = SqliteFile::open(&path, &SCHEMA).unwrap();
        file.writer().unwrap().execute("INSERT INTO one (n, m) VALUES (1, 2)", []).unwrap();
    }

    #[tokio::test]
    async fn as_many_read_as_before_after_queries_that_panic() {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteFile::open(&folder.path().join("file.db"), &SCHEMA).unwrap();
        let (_writer, durability) = file.group_writer().unwrap();
        let pool = file.read_pool(durability);
        for _ in 0..=READ_CONNECTIONS {
            let failed = pool.read::<(), _>(|_| panic!("the test's own")).await;
            assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
        }
        let sql = "SELECT count(*) FROM one";
        for _ in 0..=READ_CONNECTIONS {
            let read = pool.read(|connection| connection.query_row(sql, [], |row| row.get::<_, i64>(0)));
            assert_eq!(read.await.unwrap(), 0);
        }
    }

    #[test]
    fn a_newer_a_foreign_a_damaged_and_a_locked_file_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        let file = SqliteFile::open(&path, &SCHEMA).unwrap();
        assert!(refused(&path, &SCHEMA).contains("in use by another process"));
        drop(file);
        let older = Schema { migrations: &SCHEMA.migrations[..1], ..SCHEMA };
        assert!(refused(&path, &older).contains("schema version 2, and this binary knows up to 1"));
        assert!(refused(&path, &Schema { application_id: 8, ..SCHEMA }).contains("not a database of the test"));
        let garbage = folder.path().join("garbage.db");
        std::fs::write(&garbage, [42; 8_192]).unwrap();
        assert!(refused(&garbage, &SCHEMA).contains("garbage.db is damaged or no database"));
        assert!(refused(folder.path(), &SCHEMA).contains("cannot open"));
    }
}
