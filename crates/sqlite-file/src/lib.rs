//! A SQLite file that one process owns: durable at every commit, migrated when opened, read while it is written.

mod database_file;
mod durability;
mod fail_stop;
mod modes;
mod open_error;
mod read_pool;
mod shared_connection;
mod wal_mover;
mod write_back;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use group_commit::StoreError;
use rusqlite::{Connection, ErrorCode, OpenFlags};

pub use self::database_file::{DatabaseFile, UseProbe, connect_beside};
pub use self::durability::Durability;
pub use self::fail_stop::{FailStop, StorageFailed};
pub use self::modes::{create_folder, for_owner, warn_of_exposed};
pub use self::open_error::OpenError;
pub use self::read_pool::ReadPool;
pub use self::shared_connection::SharedConnection;

/// Statements kept prepared by a connection: more than a service has.
const PREPARED_STATEMENTS: usize = 64;

/// Memory for the pages of one connection, in KiB, taken as it is used: more than the inner pages of ten million accounts and cards, so
/// that of a page anywhere among them only its rows come from disk. The system's own page cache holds the rest.
const PAGE_CACHE_KIB: i64 = 16 * 1_024;

/// The write-ahead log is cut back to this when it has been written to the file, in bytes.
const WAL_KEEP_BYTES: i64 = 32 * 1_024 * 1_024;

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
    file: DatabaseFile,
    /// What [`close`](SqliteFile::close) closes.
    shared: Arc<Mutex<Vec<SharedConnection>>>,
}

impl SqliteFile {
    /// Opens the file at `path`, creates it (and its folder) if it is missing, takes the lock, and brings it to the last
    /// version of `schema`, each step in a transaction of its own.
    pub fn open(path: &Path, schema: &Schema) -> Result<Self, OpenError> {
        let file = SqliteFile { file: DatabaseFile::open(path)?, shared: Arc::default() };
        let connection = file.file.connect(OpenFlags::SQLITE_OPEN_READ_WRITE);
        let connection = connection.map_err(|error| open_error(path, &error))?;
        // Nothing is written to a file of somebody else.
        check_owner(&connection, schema, path)?;
        file.file.start_wal(&connection).map_err(|error| open_error(path, &error))?;
        migrate(&mut file.writer()?, schema, path)?;
        Ok(file)
    }

    /// A connection that writes to a file of exactly this schema which another process may have. It is for what no process
    /// keeps in memory, but looks up in the file.
    pub fn connect_beside(path: &Path, schema: &Schema) -> Result<Connection, OpenError> {
        if let Err(error) = std::fs::metadata(path) {
            return Err(OpenError::Unusable { path: path.to_owned(), reason: error.to_string() });
        }
        let connection = connect_beside(path, OpenFlags::SQLITE_OPEN_READ_WRITE);
        let connection = connection.and_then(as_writer).map_err(|error| open_error(path, &error))?;
        let (found, known) = (check_owner(&connection, schema, path)?, schema.migrations.len());
        match found == known {
            true => Ok(connection),
            false => Err(OpenError::Older { path: path.to_owned(), found, known }),
        }
    }

    /// A connection that writes. Its commits are durable when they return: `synchronous=FULL` (ARCHITECTURE.md A2, B1).
    /// The caller closes it before this file.
    pub fn writer(&self) -> Result<Connection, OpenError> {
        open_writer(&self.file)
    }

    /// As [`writer`](SqliteFile::writer), for a thread that may be blocked elsewhere when the file is closed.
    pub fn shared_writer(&self) -> Result<SharedConnection, OpenError> {
        Ok(self.share(self.writer()?))
    }

    /// A connection whose commits are durable once [`Durability::sync`] says so: the one that a group commit writes with. What
    /// it has written is moved to the file beside its commits. It is closed before the durability.
    pub fn group_writer(&self) -> Result<(Connection, Durability), OpenError> {
        let mut connection = self.writer()?;
        connection.pragma_update(None, "synchronous", "normal").map_err(|error| open_error(self.path(), &error))?;
        wal_mover::move_beside(&mut connection, &self.file)?;
        Ok((connection, Durability::open(&self.file)?))
    }

    /// A connection that only reads, and sees each commit as soon as it is written. The caller closes it before this file.
    pub fn reader(&self) -> Result<Connection, OpenError> {
        let connection = self.file.connect(OpenFlags::SQLITE_OPEN_READ_ONLY).and_then(|connection| {
            configure(&connection)?;
            // SQLite opens the write-ahead log when it first reads.
            connection.query_row("PRAGMA user_version", [], |_| Ok(()))?;
            Ok(connection)
        });
        connection.map_err(|error| open_error(self.path(), &error))
    }

    fn shared_reader(&self) -> Result<SharedConnection, OpenError> {
        Ok(self.share(self.reader()?))
    }

    /// Readers for handlers, of what the writer with this `durability` writes.
    pub fn read_pool(&self, durability: Durability) -> Result<ReadPool, OpenError> {
        ReadPool::open(self, durability)
    }

    /// What ends the process when the storage of this file fails.
    pub fn fail_stop(&self) -> &FailStop {
        self.file.fail_stop()
    }

    /// Closes the shared connections, each when what it runs has ended, and then the file, so that it is whole without its
    /// write-ahead log ([`DatabaseFile::close`]). The writers are closed before.
    pub fn close(&self) -> Result<(), StoreError> {
        let shared = std::mem::take(&mut *self.shared.lock().unwrap_or_else(PoisonError::into_inner));
        shared.iter().for_each(SharedConnection::close);
        self.file.close().map_err(|error| StoreError::Unavailable(format!("cannot close the database: {error}")))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.name()
    }

    fn share(&self, connection: Connection) -> SharedConnection {
        let shared = SharedConnection::new(connection, self.file.clone());
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).push(shared.clone());
        shared
    }
}

fn open_writer(file: &DatabaseFile) -> Result<Connection, OpenError> {
    let connection = file.connect(OpenFlags::SQLITE_OPEN_READ_WRITE).and_then(as_writer);
    connection.map_err(|error| open_error(file.name(), &error))
}

fn as_writer(connection: Connection) -> rusqlite::Result<Connection> {
    configure(&connection)?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "journal_size_limit", WAL_KEEP_BYTES)?;
    connection.pragma_update(None, "foreign_keys", "on")?;
    Ok(connection)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(PREPARED_STATEMENTS);
    connection.pragma_update(None, "cache_size", -PAGE_CACHE_KIB)
}

/// Checks whose file it is and that this binary knows its schema, and returns the version of that.
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
    let (found, known) = (usize::try_from(version).unwrap_or(usize::MAX), schema.migrations.len());
    match found > known {
        true => Err(OpenError::Newer { path: path.to_owned(), found, known }),
        false => Ok(found),
    }
}

fn migrate(connection: &mut Connection, schema: &Schema, path: &Path) -> Result<(), OpenError> {
    let failed = |error: rusqlite::Error| open_error(path, &error);
    let version = check_owner(connection, schema, path)?;
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
