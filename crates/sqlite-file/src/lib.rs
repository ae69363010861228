//! A SQLite file in WAL mode that one process owns.
//!
//! [`SqliteFile`] is for the services: it locks and migrates the file, and gives out connections whose commits are durable.
//! [`DatabaseFile`] under it has no schema, and is what the embedded event log uses.

mod database_file;
mod durability;
mod expired_keys;
mod fail_stop;
mod modes;
mod read_pool;
mod shared_connection;
mod wal_checkpoint;
mod write_back;

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use group_commit::StoreError;
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags};

pub use self::database_file::{DatabaseFile, UseProbe, connect_beside};
pub use self::durability::Durability;
pub use self::expired_keys::remove_expired_keys;
pub use self::fail_stop::{FailStop, StorageFailed};
pub use self::modes::{create_folder, for_owner, warn_of_exposed};
pub use self::read_pool::ReadPool;
pub use self::shared_connection::SharedConnection;

/// The number of prepared statements that a connection keeps: more than a service has.
const PREPARED_STATEMENTS: usize = 64;

/// The page cache of a connection, in KiB, allocated as it is used. It holds the inner pages of ten million accounts and
/// cards; the system's page cache holds the rest.
const PAGE_CACHE_KIB: i64 = 16 * 1_024;

/// The size in bytes that the `-wal` file is cut back to after a WAL checkpoint.
const WAL_KEEP_BYTES: i64 = 32 * 1_024 * 1_024;

/// How long a connection waits for another connection's transaction, which may take as long as an fsync.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a file cannot be used, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(String);

impl OpenError {
    /// The system or SQLite cannot create, open or lock the file at `path`.
    pub fn unusable(path: &Path, reason: impl Display) -> Self {
        OpenError(format!("cannot open {}: {reason}", path.display()))
    }
}

/// The owner of a file, and its tables.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// SQLite's `application_id`, by which a service refuses another service's file.
    pub application_id: i32,
    /// The name of the service, for error messages.
    pub owner: &'static str,
    /// The SQL of each version, in order: `user_version` counts those that a file has. A released migration never changes.
    pub migrations: &'static [&'static str],
}

/// An open, locked and migrated file. The lock lasts as long as this value, its clones and its connections.
#[derive(Debug, Clone)]
pub struct SqliteFile {
    file: DatabaseFile,
    /// The connections that [`close`](SqliteFile::close) closes.
    shared: Arc<Mutex<Vec<SharedConnection>>>,
}

impl SqliteFile {
    /// Opens and locks the file at `path`, and migrates it to the last version of `schema`. Creates the file and its folder
    /// if they are missing. Refuses another service's file, and one with a newer schema.
    pub fn open(path: &Path, schema: &Schema) -> Result<Self, OpenError> {
        let file = SqliteFile { file: DatabaseFile::open(path)?, shared: Arc::default() };
        let connection = file.file.connect(OpenFlags::SQLITE_OPEN_READ_WRITE);
        let connection = connection.map_err(|error| open_error(path, &error))?;
        // Before anything is written.
        check_owner(&connection, schema, path)?;
        file.file.start_wal(&connection).map_err(|error| open_error(path, &error))?;
        migrate(&mut file.writer()?, schema, path)?;
        Ok(file)
    }

    /// A connection that writes to a file which another process may own, without its lock. The file must have exactly this
    /// schema. Only for rows that the owner reads from the file each time, and keeps no copy of in memory.
    pub fn connect_beside(path: &Path, schema: &Schema) -> Result<Connection, OpenError> {
        std::fs::metadata(path).map_err(|error| OpenError::unusable(path, error))?;
        let connection = connect_beside(path, OpenFlags::SQLITE_OPEN_READ_WRITE);
        let connection = connection.and_then(as_writer).map_err(|error| open_error(path, &error))?;
        let (found, known) = (check_owner(&connection, schema, path)?, schema.migrations.len());
        match found == known {
            true => Ok(connection),
            false => Err(OpenError(format!(
                "{} has schema version {found}, and this binary needs {known}: start the newer version of the service first",
                path.display()
            ))),
        }
    }

    /// A connection whose commits are durable when they return (`synchronous=FULL`). The caller closes it before the file.
    pub fn writer(&self) -> Result<Connection, OpenError> {
        open_writer(&self.file)
    }

    /// Like [`writer`](SqliteFile::writer), for a thread that may be blocked elsewhere when the file is closed.
    pub fn shared_writer(&self) -> Result<SharedConnection, OpenError> {
        Ok(self.share(self.writer()?))
    }

    /// The connection of a group commit. A commit is durable after the next [`Durability::sync`], and WAL checkpoints run on
    /// a thread of their own. The caller closes the connection before the file.
    pub fn group_writer(&self) -> Result<(Connection, Durability), OpenError> {
        let mut connection = self.writer()?;
        connection.pragma_update(None, "synchronous", "normal").map_err(|error| open_error(self.path(), &error))?;
        wal_checkpoint::checkpoint_beside(&mut connection, &self.file)?;
        Ok((connection, Durability::open(&self.file)?))
    }

    /// A connection that only reads. The caller closes it before the file.
    pub fn reader(&self) -> Result<Connection, OpenError> {
        let connection = self.file.connect(OpenFlags::SQLITE_OPEN_READ_ONLY).and_then(|connection| {
            configure(&connection)?;
            // The first read opens the write-ahead log.
            connection.query_row("PRAGMA user_version", [], |_| Ok(()))?;
            Ok(connection)
        });
        connection.map_err(|error| open_error(self.path(), &error))
    }

    fn shared_reader(&self) -> Result<SharedConnection, OpenError> {
        Ok(self.share(self.reader()?))
    }

    /// Connections for request handlers. `durability` is that of the writer.
    pub fn read_pool(&self, durability: Durability) -> Result<ReadPool, OpenError> {
        ReadPool::open(self, durability)
    }

    /// What stops the process when the storage of this file fails.
    pub fn fail_stop(&self) -> &FailStop {
        self.file.fail_stop()
    }

    /// Closes the shared connections after their running work, then checkpoints and removes the write-ahead log
    /// ([`DatabaseFile::close`]). The writers must be closed before.
    pub fn close(&self) -> Result<(), StoreError> {
        let shared = std::mem::take(&mut *self.shared.lock());
        shared.iter().for_each(SharedConnection::close);
        self.file.close().map_err(|error| StoreError::Unavailable(format!("cannot close the database: {error}")))
    }

    /// The path of the file, as it was given.
    pub fn path(&self) -> &Path {
        self.file.name()
    }

    fn share(&self, connection: Connection) -> SharedConnection {
        let shared = SharedConnection::new(connection, self.file.clone());
        self.shared.lock().push(shared.clone());
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

/// Returns the schema version of the file. Refuses a foreign file and a newer schema.
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
        return Err(OpenError(format!("{} is not a database of the {}", path.display(), schema.owner)));
    }
    let (found, known) = (usize::try_from(version).unwrap_or(usize::MAX), schema.migrations.len());
    match found > known {
        true => Err(OpenError(format!(
            "{} has schema version {found}, and this binary knows up to {known}: start the newer binary",
            path.display()
        ))),
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
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => OpenError(format!(
            "{} is damaged or no database ({error}): restore it from a backup, or move it away to start empty",
            path.display()
        )),
        _ => OpenError::unusable(path, error),
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
