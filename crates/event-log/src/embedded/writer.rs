//! Writing to the embedded log's file. All writes go through one [`Writer`] behind one mutex, so that no write of this process waits
//! for SQLite's lock.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use rusqlite::{Connection, Statement};

use super::chunk::ChunkBuilder;
use super::state::Batch;
use super::storage::{Database, LogFile, signed};
use crate::{LogError, Positions};

pub(super) struct Writer {
    /// Syncs each commit.
    synced: Database,
    /// Does not sync: its commits become durable with the next one of `synced`. A crash may lose the last ones, never an earlier one
    /// without those after it.
    relaxed: Database,
    /// Kept for its allocation.
    chunk: ChunkBuilder,
}

impl Writer {
    pub(super) fn open(file: &Arc<LogFile>, partition_count: u32) -> Result<Writer, LogError> {
        let synced = Database::connect(file, partition_count)?;
        let mut relaxed = Database::connect(file, partition_count)?;
        relaxed.run(|connection| Ok(connection.pragma_update(None, "synchronous", "NORMAL")?))?;
        Ok(Writer { synced, relaxed, chunk: ChunkBuilder::default() })
    }

    /// Commits the batches and their publishers' positions in one synced transaction.
    pub(super) fn append(&mut self, batches: &[Arc<Batch>]) -> Result<(), LogError> {
        // The last batch of each publisher.
        let last: BTreeMap<_, _> = batches.iter().map(|batch| (&batch.publisher, batch)).collect();
        let Writer { synced, chunk, .. } = self;
        synced.run(|connection| {
            let transaction = connection.transaction()?;
            append_records(&transaction, batches, chunk)?;
            for (publisher, batch) in last {
                transaction.prepare_cached("INSERT OR REPLACE INTO publishers VALUES (?1, ?2, ?3)")?.execute((
                    &**publisher,
                    signed(batch.position),
                    &*batch.note,
                ))?;
            }
            Ok(transaction.commit()?)
        })
    }

    /// Commits positions of a group. After a crash that loses them the group reads some records again.
    pub(super) fn store_group(&mut self, group: &str, positions: &Positions) -> Result<(), LogError> {
        self.relaxed.run(|connection| {
            let transaction = connection.transaction()?;
            for (partition, next_offset) in positions {
                transaction.prepare_cached("INSERT OR REPLACE INTO group_positions VALUES (?1, ?2, ?3)")?.execute((
                    group,
                    partition,
                    signed(*next_offset),
                ))?;
            }
            Ok(transaction.commit()?)
        })
    }

    /// Replaces the chunks whose first offset is in `replaced` by `chunk`, which may be empty.
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

    /// Stores how far a partition is compacted.
    pub(super) fn store_clean(&mut self, partition: u32, end: u64, records: u64) -> Result<(), LogError> {
        self.relaxed.run(|connection| {
            connection.execute(
                "UPDATE partitions SET clean_end = ?2, clean_records = ?3 WHERE partition = ?1",
                (partition, signed(end), signed(records)),
            )?;
            Ok(())
        })
    }

    /// Returns up to `pages` free pages to the file system and keeps `keep`. Returns whether more can be returned.
    pub(super) fn vacuum(&mut self, pages: i64, keep: i64) -> Result<bool, LogError> {
        self.relaxed.run(|connection| {
            let free: i64 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
            let surplus = free - keep;
            if surplus <= 0 {
                return Ok(false);
            }
            let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({})", surplus.min(pages)))?;
            let mut rows = statement.query([])?;
            // Each step frees one page.
            while rows.next()?.is_some() {}
            Ok(surplus > pages)
        })
    }
}

/// Inserts each partition's records, in as few chunks as hold them.
fn append_records(connection: &Connection, batches: &[Arc<Batch>], chunk: &mut ChunkBuilder) -> rusqlite::Result<()> {
    // A commit that failed may have left records there.
    chunk.clear();
    let mut pieces: Vec<_> = batches.iter().flat_map(|batch| &batch.pieces).collect();
    pieces.sort_by_key(|piece| piece.partition);
    for of_partition in pieces.chunk_by(|one, other| one.partition == other.partition) {
        let mut insert = connection.prepare_cached(&insert_chunk(of_partition[0].partition))?;
        for piece in of_partition {
            if chunk.is_full_with(piece.bytes.len()) {
                insert_and_clear(&mut insert, chunk)?;
            }
            chunk.push_piece(piece);
        }
        insert_and_clear(&mut insert, chunk)?;
    }
    Ok(())
}

/// "OR REPLACE": a commit that reported a failure may have taken effect, and its records are inserted again.
fn insert_chunk(partition: u32) -> String {
    format!("INSERT OR REPLACE INTO chunks_{partition} VALUES (?1, ?2, ?3, ?4, ?5)")
}

/// Inserts the chunk unless it is empty, and clears it.
fn insert_and_clear(insert: &mut Statement<'_>, chunk: &mut ChunkBuilder) -> rusqlite::Result<()> {
    if let Some(row) = chunk.row() {
        insert.execute(row)?;
    }
    chunk.clear();
    Ok(())
}
