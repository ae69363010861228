//! What is written to the embedded log's file. One [`Writer`] stands behind one mutex, so within the process no write
//! ever waits for a lock of SQLite's.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use rusqlite::Connection;

use super::chunk::ChunkBuilder;
use super::layout::{insert_and_clear, insert_chunk};
use super::state::Batch;
use super::storage::{Database, LogFile, signed};
use crate::{LogError, Positions};

/// Two connections to the file: one whose commits are synced, and one whose commits are as atomic and in the same order,
/// but reach the disk with the next synced one. A crash may take the latter's last commits back, never one without
/// those behind it.
pub(super) struct Writer {
    synced: Database,
    relaxed: Database,
    /// The chunk that is being made; kept for its allocation.
    chunk: ChunkBuilder,
}

impl Writer {
    pub(super) fn open(file: &Arc<LogFile>, partition_count: u32) -> Result<Writer, LogError> {
        let synced = Database::connect(file, partition_count)?;
        let mut relaxed = Database::connect(file, partition_count)?;
        relaxed.run(|connection| Ok(connection.pragma_update(None, "synchronous", "NORMAL")?))?;
        Ok(Writer { synced, relaxed, chunk: ChunkBuilder::default() })
    }

    /// Commits the batches, each one's position with its records, in one synced transaction.
    pub(super) fn append(&mut self, batches: &[Arc<Batch>]) -> Result<(), LogError> {
        // Of each publisher the last.
        let positions: BTreeMap<_, _> = batches.iter().map(|batch| (&batch.publisher, batch.position)).collect();
        let Writer { synced, chunk, .. } = self;
        synced.run(|connection| {
            let transaction = connection.transaction()?;
            append_records(&transaction, batches, chunk)?;
            for (publisher, position) in positions {
                transaction
                    .prepare_cached(
                        "INSERT INTO publisher_positions VALUES (?1, ?2)
                         ON CONFLICT (name) DO UPDATE SET position = excluded.position",
                    )?
                    .execute((&**publisher, signed(position)))?;
            }
            Ok(transaction.commit()?)
        })
    }

    /// Commits a group's positions. A crash may take them back: the group then reads some records again.
    pub(super) fn store_group(&mut self, group: &str, positions: &Positions) -> Result<(), LogError> {
        self.relaxed.run(|connection| {
            let transaction = connection.transaction()?;
            for (partition, next_offset) in positions {
                transaction
                    .prepare_cached(
                        "INSERT INTO group_positions VALUES (?1, ?2, ?3)
                         ON CONFLICT (group_name, partition) DO UPDATE SET next_offset = excluded.next_offset",
                    )?
                    .execute((group, partition, signed(*next_offset)))?;
            }
            Ok(transaction.commit()?)
        })
    }

    /// Puts `chunk`, or nothing if it has no record, in the place of the chunks that begin in `replaced`.
    pub(super) fn replace(
        &mut self,
        partition: u32,
        replaced: RangeInclusive<u64>,
        chunk: &mut ChunkBuilder,
    ) -> Result<(), LogError> {
        self.relaxed.run(|connection| {
            let transaction = connection.transaction()?;
            let delete = format!("DELETE FROM chunks_{partition} WHERE first_offset BETWEEN ?1 AND ?2");
            transaction.prepare_cached(&delete)?.execute([signed(*replaced.start()), signed(*replaced.end())])?;
            insert_and_clear(&mut *transaction.prepare_cached(&insert_chunk(partition))?, chunk)?;
            Ok(transaction.commit()?)
        })
    }

    /// Notes how far a partition is compacted.
    pub(super) fn store_clean(&mut self, partition: u32, end: u64, records: u64) -> Result<(), LogError> {
        self.relaxed.run(|connection| {
            connection.execute(
                "UPDATE partitions SET clean_end = ?2, clean_records = ?3 WHERE partition = ?1",
                (partition, signed(end), signed(records)),
            )?;
            Ok(())
        })
    }

    /// Gives up to `pages` free pages back to the file system, as long as more than `keep` are free. Returns whether
    /// there is more to give.
    pub(super) fn vacuum(&mut self, pages: u64, keep: u64) -> Result<bool, LogError> {
        self.relaxed.run(|connection| {
            let free =
                |connection: &Connection| connection.query_row("PRAGMA freelist_count", [], |row| row.get::<_, i64>(0));
            let surplus = free(connection)? - signed(keep);
            if surplus <= 0 {
                return Ok(false);
            }
            let step = surplus.min(signed(pages));
            let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({step})"))?;
            let mut rows = statement.query([])?;
            // The pragma frees one page a step.
            while rows.next()?.is_some() {}
            Ok(surplus > step)
        })
    }
}

/// Each partition's records one after the other, in as few chunks as hold them.
fn append_records(connection: &Connection, batches: &[Arc<Batch>], chunk: &mut ChunkBuilder) -> rusqlite::Result<()> {
    // A commit that failed may have left something there.
    chunk.clear();
    let mut pieces: Vec<_> = batches.iter().flat_map(|batch| &batch.pieces).collect();
    pieces.sort_by_key(|piece| piece.partition);
    for of_partition in pieces.chunk_by(|one, other| one.partition == other.partition) {
        let mut insert = connection.prepare_cached(&insert_chunk(of_partition[0].partition))?;
        for piece in of_partition {
            if chunk.is_full_with(piece.bytes()) {
                insert_and_clear(&mut insert, chunk)?;
            }
            chunk.push_piece(piece);
        }
        insert_and_clear(&mut insert, chunk)?;
    }
    Ok(())
}
