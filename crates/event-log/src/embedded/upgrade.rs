//! From the layouts before this one. The first had a row for each record; the second had wide chunks only, which stay as they are until
//! compaction puts their records into others.

use std::hash::Hasher;

use rusqlite::{Connection, OptionalExtension};
use siphasher::sip::SipHasher13;

use super::chunk::ChunkBuilder;
use super::layout::{LAYOUT, create_chunks, insert_and_clear, insert_chunk, load_partitions};
use super::storage::{Failure, unsigned};
use crate::record::{Headers, RecordRef};

/// Records that are moved in one transaction.
const MOVED_AT_ONCE: usize = 20_000;

/// Moves the records of the first layout to chunks, a part of them with each transaction. If that is cut short, the next
/// opening goes on: a table of that layout that is there still has records to be moved.
pub(super) fn upgrade(connection: &mut Connection, version: i64) -> Result<(), Failure> {
    let older = |connection: &Connection| {
        let sql = r"SELECT substr(name, 9) FROM sqlite_schema WHERE name LIKE 'records\_%' ESCAPE '\' LIMIT 1";
        connection.query_row(sql, [], |row| row.get::<_, String>(0)).optional()
    };
    if version == LAYOUT && older(connection)?.is_none() {
        return Ok(());
    }
    tracing::info!("bringing the event log's file up to date");
    let transaction = connection.transaction()?;
    if version == 1 {
        let partitions = load_partitions(&transaction)?;
        partitions.iter().try_for_each(|(partition, ..)| create_chunks(&transaction, *partition))?;
    }
    // From here on the versions before this one refuse the file.
    transaction.pragma_update(None, "user_version", LAYOUT)?;
    transaction.commit()?;
    while let Some(partition) = older(connection)? {
        while move_records(connection, &partition)? {
            // So that the write-ahead log does not become as long as the file.
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        }
        connection.execute_batch(&format!("DROP TABLE records_{partition}"))?;
    }
    Ok(())
}

/// Returns whether there was anything to move.
fn move_records(connection: &mut Connection, partition: &str) -> Result<bool, Failure> {
    let transaction = connection.transaction()?;
    let mut moved = None;
    {
        let mut insert = transaction.prepare_cached(&insert_chunk(partition))?;
        let mut select = transaction.prepare_cached(&format!(
            "SELECT record_offset, key, value, headers, checksum FROM records_{partition} ORDER BY record_offset LIMIT ?1"
        ))?;
        let mut rows = select.query([MOVED_AT_ONCE as i64])?;
        let mut chunk = ChunkBuilder::default();
        while let Some(row) = rows.next()? {
            let offset = unsigned(row, 0)?;
            let part = |column| row.get_ref(column)?.as_blob_or_null().map_err(rusqlite::Error::from);
            let (key, value, headers) = (part(1)?, part(2)?, part(3)?.unwrap_or_default());
            if row.get::<_, i64>(4)? != checksum(offset, key, value, headers) {
                return Err(Failure::Damaged(format!(
                    "the record at offset {offset} of partition {partition} is garbled"
                )));
            }
            chunk.push(RecordRef { partition: 0, offset, key, value, headers: Headers::Wide(headers) });
            moved = Some(offset);
            if chunk.is_full() {
                insert_and_clear(&mut insert, &mut chunk)?;
            }
        }
        insert_and_clear(&mut insert, &mut chunk)?;
    }
    if let Some(last) = moved {
        transaction.execute(&format!("DELETE FROM records_{partition} WHERE record_offset <= ?1"), [last as i64])?;
    }
    transaction.commit()?;
    Ok(moved.is_some())
}

/// What a record's row carried to show that it is whole.
fn checksum(offset: u64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[u8]) -> i64 {
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
