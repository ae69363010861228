//! Chunks: the rows in which records are stored, as Kafka stores record batches. One row for each record would double the cost of
//! publishing and of replay.
//!
//! A chunk is a sequence of records. A record is its offset (64 bits, little endian), the [lengths](push_length) of its key, value
//! and headers, and these three parts.

use crate::Record;
use crate::record::{Headers, RecordRef, push_length, split_length};

/// The size from which a chunk takes no more records: small enough to be read for the sake of one record.
const FULL_BYTES: usize = 32 << 10;

/// The records of one row or of one [`Piece`].
pub(super) struct Chunk<'a> {
    pub(super) partition: u32,
    /// The offset of the first record: the key of the row.
    pub(super) first: u64,
    /// The offset of the last record.
    pub(super) last: u64,
    pub(super) bytes: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// The chunk of a row; `None` if its checksum does not match.
    pub(super) fn checked(partition: u32, (first, last): (u64, u64), sum: i64, bytes: &'a [u8]) -> Option<Self> {
        (sum == checksum(first, last, bytes)).then_some(Chunk { partition, first, last, bytes })
    }

    /// The records in offset order. A truncated record is `None`, and the last item.
    pub(super) fn records(&self) -> impl Iterator<Item = Option<RecordRef<'a>>> {
        let (partition, mut rest) = (self.partition, self.bytes);
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let record = split_record(partition, &mut rest);
            if record.is_none() {
                rest = &[];
            }
            Some(record)
        })
    }
}

fn split_record<'a>(partition: u32, rest: &mut &'a [u8]) -> Option<RecordRef<'a>> {
    let (offset, mut parts) = rest.split_first_chunk::<8>()?;
    let mut length = || split_length(&mut parts);
    let (key, value, headers) = (length()?, length()?, length()?);
    let mut part = |length: Option<usize>| match length {
        None => Some(None),
        Some(length) => {
            let (part, remaining) = parts.split_at_checked(length)?;
            parts = remaining;
            Some(Some(part))
        }
    };
    let (key, value, headers) = (part(key)?, part(value)?, part(headers)?.unwrap_or_default());
    *rest = parts;
    Some(RecordRef { partition, offset: u64::from_le_bytes(*offset), key, value, headers: Headers::Encoded(headers) })
}

/// Consecutive records of one batch and partition, in memory and already in the file's encoding. Readers and the writer share a piece.
pub(super) struct Piece {
    pub(super) partition: u32,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) bytes: Box<[u8]>,
}

impl Piece {
    pub(super) fn as_chunk(&self) -> Chunk<'_> {
        Chunk { partition: self.partition, first: self.first, last: self.last, bytes: &self.bytes }
    }

    /// The number of records: their offsets have no gap.
    pub(super) fn count(&self) -> usize {
        (self.last - self.first) as usize + 1
    }
}

/// Builds a chunk.
#[derive(Default)]
pub(super) struct ChunkBuilder {
    first: Option<u64>,
    last: u64,
    count: i64,
    bytes: Vec<u8>,
}

impl ChunkBuilder {
    /// Appends a new record at `offset`.
    pub(super) fn push_record(&mut self, offset: u64, record: &Record) {
        self.push_parts(offset, record.key.as_deref(), record.value.as_deref(), record.headers.as_encoded());
    }

    /// Appends a record that was read from a chunk.
    pub(super) fn push(&mut self, record: RecordRef<'_>) {
        self.push_parts(record.offset, record.key, record.value, &record.headers.to_encoded());
    }

    fn push_parts(&mut self, offset: u64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[u8]) {
        self.first.get_or_insert(offset);
        self.last = offset;
        self.count += 1;
        self.bytes.extend_from_slice(&offset.to_le_bytes());
        for part in [key, value, Some(headers)] {
            push_length(&mut self.bytes, part.map(<[u8]>::len));
        }
        for part in [key.unwrap_or_default(), value.unwrap_or_default(), headers] {
            self.bytes.extend_from_slice(part);
        }
    }

    /// Appends the records of `piece`.
    pub(super) fn push_piece(&mut self, piece: &Piece) {
        self.first.get_or_insert(piece.first);
        self.last = piece.last;
        self.count += piece.count() as i64;
        self.bytes.extend_from_slice(&piece.bytes);
    }

    /// Whether the chunk would be full with `bytes` more.
    pub(super) fn is_full_with(&self, bytes: usize) -> bool {
        self.bytes.len() + bytes >= FULL_BYTES
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The chunk's row: first and last offset, record count, checksum, records. `None` if there are no records.
    pub(super) fn row(&self) -> Option<(i64, i64, i64, i64, &[u8])> {
        let first = self.first?;
        Some((first as i64, self.last as i64, self.count, checksum(first, self.last, &self.bytes), &self.bytes))
    }

    /// Removes the records and returns them as a piece of `partition`; `None` if there are none. The offsets must have no gap.
    pub(super) fn take_piece(&mut self, partition: u32) -> Option<Piece> {
        let first = self.first?;
        let (last, bytes) = (self.last, self.bytes.as_slice().into());
        self.clear();
        Some(Piece { partition, first, last, bytes })
    }

    /// Removes the records and keeps the allocation.
    pub(super) fn clear(&mut self) {
        self.first = None;
        self.count = 0;
        self.bytes.clear();
    }
}

fn checksum(first: u64, last: u64, bytes: &[u8]) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&first.to_le_bytes());
    hasher.update(&last.to_le_bytes());
    hasher.update(bytes);
    i64::from(hasher.finalize())
}

#[cfg(test)]
mod fuzz;
