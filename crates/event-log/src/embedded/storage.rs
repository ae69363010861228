//! The embedded log's file: one SQLite database, a table of chunks per partition with the first offset as its row id.
//!
//! Every chunk carries a checksum over its offsets and records. SQLite checks what it wrote to the write-ahead log, but
//! not the pages of the main file; with the checksum a garbled page is an error and never a record (ARCHITECTURE.md
//! B1).

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Row};
use sqlite_file::{DatabaseFile, FailStop};

use super::chunk::Chunk;
use super::layout::{self, Contents};
use super::shared::CHECKPOINT_BYTES;
use crate::LogError;
use crate::record::RecordRef;

/// More partitions than this are a slip of the finger: each one is a table.
const MAX_PARTITION_COUNT: u32 = 1024;
/// How long a write waits for a tool that holds the database (an operator's `sqlite3` shell). Within the process nothing
/// ever waits here: one mutex stands before every write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Statements kept prepared a connection, beside those of each partition.
const OTHER_STATEMENTS: usize = 16;
/// Distinct statements that a connection uses a partition.
const STATEMENTS_A_PARTITION: usize = 4;
/// A file's pages, where it does not exist yet. Chunks are larger than SQLite's own 4 KiB, and most of what a page costs is not
/// its bytes: the publisher and the maintenance thread take a tenth to a fifth less time.
pub(super) const PAGE_BYTES: u64 = 16 << 10;
/// The write-ahead log file is cut back to this when it starts over, so that one burst does not keep its disk space. It is what
/// the file has under load, when more is published while it is moved: to write over a block costs less than to be given one. Cut
/// back to what is moved at once, the relay took 7 % more time.
const WAL_KEPT_BYTES: u64 = CHECKPOINT_BYTES * 3 / 2;

/// Why SQLite, or what it brought, was of no use.
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

/// The log's file, from its opening to the last of its users.
pub(super) struct LogFile(DatabaseFile);

impl Drop for LogFile {
    /// Every connection has one of these behind it, so all are closed.
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

    /// What ends the process when the storage of the log fails.
    pub(super) fn fail_stop(&self) -> &FailStop {
        self.0.fail_stop()
    }

    /// How long the write-ahead log is, in bytes.
    pub(super) fn wal_bytes(&self) -> u64 {
        std::fs::metadata(self.0.beside("-wal")).map_or(0, |metadata| metadata.len())
    }
}

/// A connection to the log's file, whose errors name the file.
pub(super) struct Database {
    connection: Connection,
    file: Arc<LogFile>,
}

impl Database {
    /// Opens the tables of `file`, or makes them with `partition_count` partitions where there is none yet.
    pub(super) fn create_or_open(file: &Arc<LogFile>, partition_count: u32) -> Result<Database, LogError> {
        if partition_count == 0 || partition_count > MAX_PARTITION_COUNT {
            return Err(LogError::Refused(format!(
                "the event log takes 1 to {MAX_PARTITION_COUNT} partitions, not {partition_count}"
            )));
        }
        let mut database = Database::open_file(file)?;
        database.run(|connection| {
            layout::check_owner(connection)?;
            // These take effect on an empty file only. Freed pages can be given back piece by piece.
            connection.pragma_update(None, "page_size", signed(PAGE_BYTES))?;
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
            file.0.start_wal(connection)?;
            configure(connection)?;
            layout::prepare(connection, partition_count)
        })?;
        Ok(database)
    }

    /// One more connection to the file that [`create_or_open`](Database::create_or_open) opened.
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

    /// Runs `work` on the connection and says which file an error is about. Nothing runs once the storage has failed.
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

    /// Reads where everything stands.
    pub(super) fn contents(&mut self) -> Result<Contents, LogError> {
        self.run(|connection| Ok(layout::load(connection)?))
    }

    /// Reads the records of `partition` in `[from, to)`, at most `limit` of them, in offset order. Returns the position
    /// behind them: `to` when there were no more. Each record is checked before `apply` sees it.
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

    /// Reads the chunks of `partition` with records in `[from, to)`, until `apply` has enough.
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

/// What every connection is set to.
fn configure(connection: &Connection) -> Result<(), Failure> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.query_row(&format!("PRAGMA journal_size_limit = {WAL_KEPT_BYTES}"), [], |_| Ok(()))?;
    // The maintenance thread moves pages to the main file; no publisher pays for that inside its commit.
    connection.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
    Ok(())
}

/// One row as a chunk, if its checksum says that it is what was written.
fn checked<'a>(partition: u32, row: &'a Row<'_>) -> Result<Chunk<'a>, Failure> {
    let (first, last) = (unsigned(row, 0)?, unsigned(row, 1)?);
    let bytes = row.get_ref(3)?.as_blob().map_err(|_| garbled(partition, first))?;
    Chunk::checked(partition, (first, last), row.get(2)?, bytes).ok_or_else(|| garbled(partition, first))
}

/// What is told of records that are not what was written.
pub(super) fn garbled(partition: u32, offset: u64) -> Failure {
    Failure::Damaged(format!("the records from offset {offset} on of partition {partition} are garbled"))
}

/// SQLite's integers are signed. Offsets count up from 0, and publishers' positions are checked as they come in.
pub(super) fn signed(number: u64) -> i64 {
    number as i64
}

pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// What a failure means to a user of the log. `/readyz` shows it, so only the name of the file is in it.
fn log_error(path: &Path, failure: Failure) -> LogError {
    let path = Path::new(path.file_name().unwrap_or_default()).display();
    let error = match failure {
        Failure::Refused(what) => return LogError::Refused(format!("{path}: {what}")),
        Failure::Damaged(what) => return LogError::Damaged(format!("{path}: {what}")),
        Failure::Sqlite(error) => error,
    };
    let text = format!("{path}: {error}");
    match error.sqlite_error_code() {
        // Errors without a code are values that are not what their column holds; "unknown" is SQLite's word for a table
        // or column that is not there. In a file with our layout number, only damage makes either.
        None | Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => {
            LogError::Damaged(text)
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => LogError::Refused(text),
        Some(_) => LogError::Unavailable(text),
    }
}
