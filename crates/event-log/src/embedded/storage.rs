//! The embedded log's file: one SQLite database with a table of chunks for each partition, keyed by first offset.
//!
//! Each chunk has a checksum over its offsets and records, because SQLite does not check the pages of the database file: a garbled
//! page is an error and never a record (ARCHITECTURE.md B1).

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Row};
use sqlite_file::{DatabaseFile, FailStop};

use super::chunk::Chunk;
use crate::record::RecordRef;
use crate::{Committed, LogError};

/// The version of the tables, kept as SQLite's `user_version`.
const LAYOUT: i64 = 1;
/// More partitions than this are a typing error: each one is a table.
const MAX_PARTITION_COUNT: u32 = 1024;
/// How long a write waits for another process, such as an operator's `sqlite3` shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Prepared statements of a connection, besides those of each partition.
const OTHER_STATEMENTS: usize = 16;
/// Prepared statements of a connection for each partition.
const STATEMENTS_A_PARTITION: usize = 4;
/// The page size of a new file. Chunks exceed SQLite's default of 4 KiB; larger pages save a tenth of the time of a commit.
pub(super) const PAGE_BYTES: u64 = 16 << 10;
/// How much is written before the maintenance thread runs a WAL checkpoint, which takes four syncs. SQLite's default is 4 MiB.
pub(super) const CHECKPOINT_BYTES: u64 = 16 << 20;
/// A failure of work on a connection.
pub(super) enum Failure {
    Sqlite(rusqlite::Error),
    Refused(String),
    Damaged(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Sqlite(error)
    }
}

/// The locked file. Every connection holds a reference, so the last user of the log closes the file.
pub(super) struct LogFile(DatabaseFile);

impl Drop for LogFile {
    fn drop(&mut self) {
        if let Err(error) = self.0.close() {
            tracing::error!(%error, path = %self.0.name().display(), "the event log is not closed cleanly: keep its -wal file");
        }
    }
}

impl LogFile {
    /// Locks the file at `path`, or creates it.
    pub(super) fn open(path: &Path) -> Result<Arc<LogFile>, LogError> {
        let file = DatabaseFile::open(path).map_err(|error| LogError::Refused(error.to_string()))?;
        Ok(Arc::new(LogFile(file)))
    }

    /// The switch that ends the process when the log's storage fails.
    pub(super) fn fail_stop(&self) -> &FailStop {
        self.0.fail_stop()
    }

    /// The length of the write-ahead log in bytes.
    pub(super) fn wal_bytes(&self) -> u64 {
        std::fs::metadata(self.0.beside("-wal")).map_or(0, |metadata| metadata.len())
    }
}

/// What the file contains besides records.
pub(super) struct Contents {
    pub(super) partitions: Vec<StoredPartition>,
    /// What publishers committed, by name.
    pub(super) publishers: Vec<(String, Committed)>,
    /// The groups' positions: group, partition, next offset.
    pub(super) groups: Vec<(String, u32, u64)>,
}

pub(super) struct StoredPartition {
    /// The offset after the last record. Compaction never removes the last record of a partition, so the records tell.
    pub(super) next_offset: u64,
    /// The end of what is compacted.
    pub(super) clean_end: u64,
    /// The number of records below `clean_end`.
    pub(super) clean_records: u64,
}

/// A connection to the log's file.
pub(super) struct Database {
    connection: Connection,
    file: Arc<LogFile>,
}

impl Database {
    /// Opens the tables of `file`. Creates them with `partition_count` partitions if the file is new.
    pub(super) fn create_or_open(file: &Arc<LogFile>, partition_count: u32) -> Result<Database, LogError> {
        if partition_count == 0 || partition_count > MAX_PARTITION_COUNT {
            return Err(LogError::Refused(format!(
                "the event log takes 1 to {MAX_PARTITION_COUNT} partitions, not {partition_count}"
            )));
        }
        let mut database = Database::open_file(file)?;
        database.run(|connection| {
            let is_new = check_layout(connection)?;
            // These two take effect in a new file only. Incremental vacuum returns free pages in small steps.
            connection.pragma_update(None, "page_size", signed(PAGE_BYTES))?;
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
            file.0.start_wal(connection)?;
            configure(connection)?;
            if is_new { create_tables(connection, partition_count) } else { Ok(()) }
        })?;
        Ok(database)
    }

    /// Opens another connection to a file that [`create_or_open`](Database::create_or_open) has opened.
    pub(super) fn connect(file: &Arc<LogFile>, partition_count: u32) -> Result<Database, LogError> {
        let mut database = Database::open_file(file)?;
        database.run(|connection| {
            configure(connection)?;
            let statements = partition_count as usize * STATEMENTS_A_PARTITION + OTHER_STATEMENTS;
            connection.set_prepared_statement_cache_capacity(statements);
            Ok(())
        })?;
        Ok(database)
    }

    fn open_file(file: &Arc<LogFile>) -> Result<Database, LogError> {
        let connection = file.0.connect(OpenFlags::SQLITE_OPEN_READ_WRITE);
        let connection = connection.map_err(|error| log_error(file.0.name(), Failure::Sqlite(error)))?;
        Ok(Database { connection, file: Arc::clone(file) })
    }

    /// Runs `work` on the connection. Fails once the storage has failed. The error names the file.
    pub(super) fn run<T>(&mut self, work: impl FnOnce(&mut Connection) -> Result<T, Failure>) -> Result<T, LogError> {
        let file = &self.file.0;
        if file.fail_stop().has_failed() {
            return Err(LogError::Unavailable("the storage failed, and the process stops".to_owned()));
        }
        work(&mut self.connection).map_err(|failure| {
            if let Failure::Sqlite(error) = &failure {
                file.check_error(error);
            }
            log_error(file.name(), failure)
        })
    }

    pub(super) fn contents(&mut self) -> Result<Contents, LogError> {
        self.run(|connection| Ok(load(connection)?))
    }

    /// Passes the records of `partition` in `[from, to)` to `apply` in offset order, at most `limit` of them. Returns the position
    /// after them, which is `to` if there are no more.
    pub(super) fn scan(
        &mut self,
        partition: u32,
        (from, to): (u64, u64),
        limit: usize,
        apply: &mut dyn FnMut(RecordRef<'_>),
    ) -> Result<u64, LogError> {
        let (mut next, mut count) = (from, 0);
        self.chunks(partition, (from, to), &mut |chunk| {
            for record in chunk.records() {
                let record = record.ok_or_else(|| garbled(partition, next))?;
                if record.offset < from {
                    continue;
                }
                if record.offset >= to || count == limit {
                    return Ok(ControlFlow::Break(()));
                }
                next = record.offset + 1;
                count += 1;
                apply(record);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(if count < limit { to } else { next })
    }

    /// Passes the chunks of `partition` that have records in `[from, to)` to `apply`, until `apply` breaks. A chunk whose checksum
    /// does not match is an error.
    pub(super) fn chunks(
        &mut self,
        partition: u32,
        (from, to): (u64, u64),
        apply: &mut dyn FnMut(Chunk<'_>) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<(), LogError> {
        self.run(|connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT first_offset, last_offset, checksum, records FROM chunks_{partition}
                 WHERE first_offset >= (SELECT ifnull(max(first_offset), 0) FROM chunks_{partition} WHERE first_offset <= ?1)
                 AND first_offset < ?2 AND last_offset >= ?1 ORDER BY first_offset"
            ))?;
            let mut rows = statement.query((signed(from), signed(to)))?;
            while let Some(row) = rows.next()?
                && apply(checked(partition, row)?)?.is_continue()
            {}
            Ok(())
        })
    }
}

/// Refuses a file that is not an event log, or that a newer version wrote. Returns whether the file is empty.
fn check_layout(connection: &Connection) -> Result<bool, Failure> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (version, tables) {
        (0, 0) => Ok(true),
        (LAYOUT, _) => Ok(false),
        (0, _) => Err(Failure::Refused("this is a database, but no event log".to_owned())),
        (other, _) => Err(Failure::Refused(format!(
            "a newer version wrote this event log (layout {other}; this version knows {LAYOUT})"
        ))),
    }
}

fn create_tables(connection: &mut Connection, partition_count: u32) -> Result<(), Failure> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(
        "CREATE TABLE publishers (name TEXT PRIMARY KEY, position INTEGER NOT NULL, note TEXT NOT NULL) STRICT,
             WITHOUT ROWID;
         CREATE TABLE group_positions (group_name TEXT, partition INTEGER, next_offset INTEGER NOT NULL,
             PRIMARY KEY (group_name, partition)) STRICT, WITHOUT ROWID;
         CREATE TABLE partitions (partition INTEGER PRIMARY KEY, clean_end INTEGER NOT NULL,
             clean_records INTEGER NOT NULL) STRICT;",
    )?;
    for partition in 0..partition_count {
        transaction.execute_batch(&format!(
            "CREATE TABLE chunks_{partition} (first_offset INTEGER PRIMARY KEY, last_offset INTEGER NOT NULL,
                 record_count INTEGER NOT NULL, checksum INTEGER NOT NULL, records BLOB NOT NULL) STRICT;
             INSERT INTO partitions VALUES ({partition}, 0, 0);"
        ))?;
    }
    transaction.pragma_update(None, "user_version", LAYOUT)?;
    transaction.commit()?;
    // The layout is now in the database file, whatever happens to the write-ahead log.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

fn load(connection: &Connection) -> rusqlite::Result<Contents> {
    let partitions = connection
        .prepare("SELECT partition, clean_end, clean_records FROM partitions ORDER BY partition")?
        .query_map([], |row| {
            let (partition, clean_end, clean_records) = (row.get::<_, u32>(0)?, unsigned(row, 1)?, unsigned(row, 2)?);
            let last =
                format!("SELECT ifnull(max(first_offset), -1), ifnull(last_offset, -1) + 1 FROM chunks_{partition}");
            let next_offset = connection.query_row(&last, [], |row| unsigned(row, 1))?;
            Ok(StoredPartition { next_offset, clean_end, clean_records })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let publishers = connection
        .prepare("SELECT name, position, note FROM publishers")?
        .query_map([], |row| Ok((row.get(0)?, Committed { position: unsigned(row, 1)?, note: row.get(2)? })))?
        .collect::<rusqlite::Result<_>>()?;
    let groups = connection
        .prepare("SELECT group_name, partition, next_offset FROM group_positions")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, unsigned(row, 2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Contents { partitions, publishers, groups })
}

fn configure(connection: &Connection) -> Result<(), Failure> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // The write-ahead log does not keep the disk space of a burst.
    connection.query_row(&format!("PRAGMA journal_size_limit = {CHECKPOINT_BYTES}"), [], |_| Ok(()))?;
    // The maintenance thread runs the WAL checkpoints.
    connection.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
    Ok(())
}

fn checked<'a>(partition: u32, row: &'a Row<'_>) -> Result<Chunk<'a>, Failure> {
    let (first, last) = (unsigned(row, 0)?, unsigned(row, 1)?);
    let bytes = row.get_ref(3)?.as_blob().map_err(|_| garbled(partition, first))?;
    Chunk::checked(partition, (first, last), row.get(2)?, bytes).ok_or_else(|| garbled(partition, first))
}

/// The failure that records read from the file are not the records that were written.
pub(super) fn garbled(partition: u32, offset: u64) -> Failure {
    Failure::Damaged(format!("the records from offset {offset} on of partition {partition} are garbled"))
}

/// SQLite's integers are signed. Offsets count up from 0, and publishers' positions are checked when they are appended.
pub(super) fn signed(number: u64) -> i64 {
    number as i64
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// The error for a user of the log. `/readyz` shows it, so it has the file's name without its folder.
fn log_error(path: &Path, failure: Failure) -> LogError {
    let path = Path::new(path.file_name().unwrap_or_default()).display();
    let error = match failure {
        Failure::Refused(reason) => return LogError::Refused(format!("{path}: {reason}")),
        Failure::Damaged(reason) => return LogError::Damaged(format!("{path}: {reason}")),
        Failure::Sqlite(error) => error,
    };
    let text = format!("{path}: {error}");
    match error.sqlite_error_code() {
        // No code: a value does not have the type of its column. "Unknown": a table or column is missing. Both are damage in a file
        // with this layout.
        None | Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => {
            LogError::Damaged(text)
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => LogError::Refused(text),
        Some(_) => LogError::Unavailable(text),
    }
}
