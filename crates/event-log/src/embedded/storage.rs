//! The embedded log's file: one SQLite database, a table of records per partition with the offset as its row id.
//!
//! Every record carries a checksum over its offset and contents. SQLite checks what it wrote to the write-ahead log, but
//! not the pages of the main file; with the checksum a garbled page is an error and never a record (ARCHITECTURE.md
//! B1).

use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Row};
use siphasher::sip::SipHasher13;

use crate::LogError;
use crate::record::{Headers, RecordRef};

/// The layout that this version writes and reads.
const SCHEMA_VERSION: i64 = 1;
/// More partitions than this are a slip of the finger: each one is a table.
const MAX_PARTITION_COUNT: u32 = 1024;
/// How long a write waits for a tool that holds the database (an operator's `sqlite3` shell). Within the process nothing
/// ever waits here: one mutex stands before every write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Statements kept prepared a connection, beside those of each partition.
const OTHER_STATEMENTS: usize = 16;
/// Distinct statements that a connection uses a partition.
const STATEMENTS_A_PARTITION: usize = 3;
/// The write-ahead log file is cut back to this when it starts over, so that one burst does not keep its disk space.
const WAL_KEPT_BYTES: u64 = 4 << 20;

/// What the file says when it is opened.
pub(super) struct Contents {
    pub(super) partitions: Vec<StoredPartition>,
    /// The publishers' positions by name.
    pub(super) publishers: Vec<(String, u64)>,
    /// The groups' positions: group, partition, next offset.
    pub(super) groups: Vec<(String, u32, u64)>,
}

/// One partition as stored.
pub(super) struct StoredPartition {
    /// The offset behind its last record. Compaction never removes the last record of a partition (it is the last of its
    /// key, or has none), so the records themselves tell.
    pub(super) next_offset: u64,
    /// Below this offset no key occurs twice.
    pub(super) clean_end: u64,
    /// How many records are below `clean_end`.
    pub(super) clean_records: u64,
}

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

/// A connection to the log's file, whose errors name the file.
pub(super) struct Database {
    connection: Connection,
    path: PathBuf,
}

impl Database {
    /// Opens the file, or makes it with `partition_count` partitions where it is not there yet.
    pub(super) fn create_or_open(path: &Path, partition_count: u32) -> Result<Database, LogError> {
        if partition_count == 0 || partition_count > MAX_PARTITION_COUNT {
            return Err(LogError::Refused(format!(
                "the event log takes 1 to {MAX_PARTITION_COUNT} partitions, not {partition_count}"
            )));
        }
        let mut database = Database::open_file(path, OpenFlags::SQLITE_OPEN_CREATE)?;
        database.run(|connection| {
            // Takes effect on an empty file only: freed pages can then be given back piece by piece.
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
            configure(connection)?;
            check_layout(connection, partition_count)
        })?;
        Ok(database)
    }

    /// One more connection to the file that [`create_or_open`](Database::create_or_open) opened.
    pub(super) fn connect(path: &Path, partition_count: u32) -> Result<Database, LogError> {
        let mut database = Database::open_file(path, OpenFlags::empty())?;
        database.run(|connection| {
            configure(connection)?;
            let statements = partition_count as usize * STATEMENTS_A_PARTITION + OTHER_STATEMENTS;
            connection.set_prepared_statement_cache_capacity(statements);
            Ok(())
        })?;
        Ok(database)
    }

    fn open_file(path: &Path, also: OpenFlags) -> Result<Database, LogError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | also;
        let connection =
            Connection::open_with_flags(path, flags).map_err(|error| log_error(path, Failure::Sqlite(error)))?;
        Ok(Database { connection, path: path.to_owned() })
    }

    /// Runs `work` on the connection and says which file an error is about.
    pub(super) fn run<T>(&mut self, work: impl FnOnce(&mut Connection) -> Result<T, Failure>) -> Result<T, LogError> {
        work(&mut self.connection).map_err(|failure| log_error(&self.path, failure))
    }

    /// Reads where everything stands.
    pub(super) fn contents(&mut self) -> Result<Contents, LogError> {
        self.run(|connection| Ok(load(connection)?))
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
        self.run(|connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT record_offset, key, value, headers, checksum FROM records_{partition}
                 WHERE record_offset >= ?1 AND record_offset < ?2 ORDER BY record_offset LIMIT ?3"
            ))?;
            let mut rows = statement.query((signed(from), signed(to), signed(limit as u64)))?;
            let (mut next, mut count) = (from, 0);
            while let Some(row) = rows.next()? {
                let record = decode(partition, row)?;
                next = record.offset + 1;
                count += 1;
                apply(record);
            }
            Ok(if count < limit { to } else { next })
        })
    }
}

/// What every connection is set to.
fn configure(connection: &Connection) -> Result<(), Failure> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.query_row(&format!("PRAGMA journal_size_limit = {WAL_KEPT_BYTES}"), [], |_| Ok(()))?;
    // The maintenance thread moves pages to the main file; no publisher pays for that inside its commit.
    connection.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
    Ok(())
}

fn check_layout(connection: &mut Connection, partition_count: u32) -> Result<(), Failure> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (version, tables) {
        (0, 0) => create(connection, partition_count),
        (SCHEMA_VERSION, _) => Ok(()),
        (0, _) => Err(Failure::Refused("this is a database, but no event log".to_owned())),
        (other, _) => Err(Failure::Refused(format!(
            "a newer version wrote this event log (layout {other}; this version knows {SCHEMA_VERSION})"
        ))),
    }
}

fn create(connection: &mut Connection, partition_count: u32) -> Result<(), Failure> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(
        "CREATE TABLE publisher_positions (name TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT, WITHOUT ROWID;
         CREATE TABLE group_positions (group_name TEXT, partition INTEGER, next_offset INTEGER NOT NULL,
             PRIMARY KEY (group_name, partition)) STRICT, WITHOUT ROWID;
         CREATE TABLE partitions (partition INTEGER PRIMARY KEY, clean_end INTEGER NOT NULL,
             clean_records INTEGER NOT NULL) STRICT;",
    )?;
    for partition in 0..partition_count {
        transaction.execute_batch(&format!(
            "CREATE TABLE records_{partition} (record_offset INTEGER PRIMARY KEY, key BLOB, value BLOB,
                 headers BLOB NOT NULL, checksum INTEGER NOT NULL) STRICT;
             INSERT INTO partitions VALUES ({partition}, 0, 0);"
        ))?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()?;
    // The layout goes to the main file now: whatever happens to the write-ahead log later, this stays an event log.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

fn load(connection: &Connection) -> rusqlite::Result<Contents> {
    let partitions: Vec<(u32, u64, u64)> = connection
        .prepare("SELECT partition, clean_end, clean_records FROM partitions ORDER BY partition")?
        .query_map([], |row| Ok((row.get(0)?, unsigned(row, 1)?, unsigned(row, 2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let partitions = partitions
        .into_iter()
        .map(|(partition, clean_end, clean_records)| {
            let last = format!("SELECT ifnull(max(record_offset), -1) + 1 FROM records_{partition}");
            let next_offset = connection.query_row(&last, [], |row| unsigned(row, 0))?;
            Ok(StoredPartition { next_offset, clean_end, clean_records })
        })
        .collect::<rusqlite::Result<_>>()?;
    let publishers = connection
        .prepare("SELECT name, position FROM publisher_positions")?
        .query_map([], |row| Ok((row.get(0)?, unsigned(row, 1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let groups = connection
        .prepare("SELECT group_name, partition, next_offset FROM group_positions")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, unsigned(row, 2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Contents { partitions, publishers, groups })
}

/// One row as a record, if its checksum says that it is what was written.
fn decode<'a>(partition: u32, row: &'a Row<'_>) -> Result<RecordRef<'a>, Failure> {
    let offset = unsigned(row, 0)?;
    let damaged = || Failure::Damaged(format!("the record at offset {offset} of partition {partition} is garbled"));
    let key = row.get_ref(1)?.as_blob_or_null().map_err(|_| damaged())?;
    let value = row.get_ref(2)?.as_blob_or_null().map_err(|_| damaged())?;
    let headers = row.get_ref(3)?.as_blob().map_err(|_| damaged())?;
    let stored: i64 = row.get(4)?;
    if stored != checksum(offset, key, value, headers) {
        return Err(damaged());
    }
    Ok(RecordRef { partition, offset, key, value, headers: Headers::Encoded(headers) })
}

/// What a record's row carries to show that it is whole: 32 bits, so that the column stays small.
pub(super) fn checksum(offset: u64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[u8]) -> i64 {
    // The lengths go in as well, and a missing part has one that no real part has.
    let length = |part: Option<&[u8]>| part.map_or(u64::MAX, |part| part.len() as u64);
    let mut hasher = SipHasher13::new();
    hasher.write_u64(offset);
    hasher.write_u64(length(key));
    hasher.write_u64(length(value));
    hasher.write(key.unwrap_or_default());
    hasher.write(value.unwrap_or_default());
    hasher.write(headers);
    i64::from(hasher.finish() as u32)
}

/// SQLite's integers are signed. Offsets count up from 0, and publishers' positions are checked as they come in.
pub(super) fn signed(number: u64) -> i64 {
    number as i64
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// What a failure means to a user of the log.
fn log_error(path: &Path, failure: Failure) -> LogError {
    let path = path.display();
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
