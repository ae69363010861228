//! The tables of the embedded log's file: created in a new file, checked and read when the log is opened.

use rusqlite::Connection;

use super::chunk::ChunkBuilder;
use super::storage::{Failure, unsigned};

/// The version of the layout, kept as SQLite's `user_version`.
const LAYOUT: i64 = 1;

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

/// Refuses a file that is no event log, or one of a newer version. Returns its layout, 0 for an empty file.
pub(super) fn check_owner(connection: &Connection) -> Result<i64, Failure> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (version, tables) {
        (0, 0) | (LAYOUT, _) => Ok(version),
        (0, _) => Err(Failure::Refused("this is a database, but no event log".to_owned())),
        (other, _) => Err(Failure::Refused(format!(
            "a newer version wrote this event log (layout {other}; this version knows {LAYOUT})"
        ))),
    }
}

/// Creates the tables in a new file, with `partition_count` partitions. Refuses a file of another layout.
pub(super) fn prepare(connection: &mut Connection, partition_count: u32) -> Result<(), Failure> {
    match check_owner(connection)? {
        0 => create(connection, partition_count),
        _ => Ok(()),
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
        create_chunks(&transaction, partition)?;
        transaction.execute("INSERT INTO partitions VALUES (?1, 0, 0)", [partition])?;
    }
    transaction.pragma_update(None, "user_version", LAYOUT)?;
    transaction.commit()?;
    // The layout goes to the main file now: whatever happens to the write-ahead log later, this stays an event log.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

fn create_chunks(connection: &Connection, partition: u32) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "CREATE TABLE chunks_{partition} (first_offset INTEGER PRIMARY KEY, last_offset INTEGER NOT NULL,
             record_count INTEGER NOT NULL, checksum INTEGER NOT NULL, records BLOB NOT NULL) STRICT;"
    ))
}

/// The statement that [`insert_and_clear`] runs. A commit that fails may still be found whole after all: putting the same
/// records again must then be no error.
pub(super) fn insert_chunk(partition: impl std::fmt::Display) -> String {
    format!("INSERT OR REPLACE INTO chunks_{partition} VALUES (?1, ?2, ?3, ?4, ?5)")
}

/// Writes the chunk, if it has any record, and makes it ready for the next ones.
pub(super) fn insert_and_clear(insert: &mut rusqlite::Statement<'_>, chunk: &mut ChunkBuilder) -> rusqlite::Result<()> {
    if let Some(row) = chunk.row() {
        insert.execute(row)?;
    }
    chunk.clear();
    Ok(())
}

/// Reads where everything stands.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<Contents> {
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
        .prepare("SELECT name, position FROM publisher_positions")?
        .query_map([], |row| Ok((row.get(0)?, unsigned(row, 1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let groups = connection
        .prepare("SELECT group_name, partition, next_offset FROM group_positions")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, unsigned(row, 2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Contents { partitions, publishers, groups })
}
