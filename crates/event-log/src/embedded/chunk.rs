//! Chunks: the records that lie together in one row of the file, as Kafka keeps record batches. A row a record costs a
//! publisher, and whoever reads a long log, about as much again as all else that is done with a record.
//!
//! A record in a chunk is its offset (64 bits, little endian), the [lengths](push_length) of key, value and headers, and the three
//! parts.

use crate::Record;
use crate::record::{Headers, RecordRef, push_length, split_length};

/// A chunk takes no more records once it has so many bytes: few enough to be read for the sake of one record.
const FULL_BYTES: usize = 32 << 10;

/// A chunk as the file has it, its checksum already compared, or as a [`Piece`] has it.
pub(super) struct Chunk<'a> {
    pub(super) partition: u32,
    /// The offset of its first record, which names it.
    pub(super) first: u64,
    /// The offset of its last record.
    pub(super) last: u64,
    pub(super) bytes: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// The chunk of a row; `None` if its checksum says that it is not what was written.
    pub(super) fn checked(partition: u32, (first, last): (u64, u64), sum: i64, bytes: &'a [u8]) -> Option<Self> {
        (sum == checksum(first, last, bytes)).then_some(Chunk { partition, first, last, bytes })
    }

    /// Its records in the order of their offsets; `None` in place of one that is cut short.
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
            let (part, behind) = parts.split_at_checked(length)?;
            parts = behind;
            Some(Some(part))
        }
    };
    let (key, value, headers) = (part(key)?, part(value)?, part(headers)?.unwrap_or_default());
    let headers = Headers::Encoded(headers);
    *rest = parts;
    Some(RecordRef { partition, offset: u64::from_le_bytes(*offset), key, value, headers })
}

/// Records of one batch that follow each other in a partition, in memory: laid out as they will lie in the file, so that they
/// are put together once, and shared by whoever reads or writes them.
pub(super) struct Piece {
    pub(super) partition: u32,
    pub(super) first: u64,
    pub(super) last: u64,
    bytes: Box<[u8]>,
    /// How many of its records may replace an earlier one.
    pub(super) replacing: u64,
}

impl Piece {
    pub(super) fn as_chunk(&self) -> Chunk<'_> {
        Chunk { partition: self.partition, first: self.first, last: self.last, bytes: &self.bytes }
    }

    /// How many records it has: their offsets have no gap.
    pub(super) fn count(&self) -> usize {
        (self.last - self.first) as usize + 1
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// A chunk that is being made.
#[derive(Default)]
pub(super) struct ChunkBuilder {
    first: Option<u64>,
    last: u64,
    count: i64,
    replacing: u64,
    bytes: Vec<u8>,
}

impl ChunkBuilder {
    /// Adds `record`, which has this offset, behind those before it.
    pub(super) fn push_record(&mut self, offset: u64, record: &Record) {
        self.replacing += u64::from(record.key.is_some() && !record.is_first_of_key);
        self.push_parts(offset, record.key.as_deref(), record.value.as_deref(), record.headers.as_encoded());
    }

    /// Adds a record that was read, at its offset, behind those before it.
    pub(super) fn push(&mut self, record: RecordRef<'_>) {
        let rewritten;
        let headers = match record.headers {
            Headers::Encoded(headers) => headers,
            headers => {
                rewritten = headers.to_list();
                rewritten.as_encoded()
            }
        };
        self.push_parts(record.offset, record.key, record.value, headers);
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

    /// Adds the records of `piece` behind those before them.
    pub(super) fn push_piece(&mut self, piece: &Piece) {
        self.first.get_or_insert(piece.first);
        self.last = piece.last;
        self.count += piece.count() as i64;
        self.bytes.extend_from_slice(&piece.bytes);
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_full_with(0)
    }

    /// Whether it would be with so many bytes more.
    pub(super) fn is_full_with(&self, bytes: usize) -> bool {
        self.bytes.len() + bytes >= FULL_BYTES
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Its row: the first and the last offset, how many records, the checksum, the records; `None` if it has none.
    pub(super) fn row(&self) -> Option<(i64, i64, i64, i64, &[u8])> {
        let first = self.first?;
        Some((first as i64, self.last as i64, self.count, checksum(first, self.last, &self.bytes), &self.bytes))
    }

    /// The records so far, which have no gap, as a piece of `partition`; `None` if there is none. It is empty then.
    pub(super) fn take_piece(&mut self, partition: u32) -> Option<Piece> {
        let first = self.first?;
        let (last, bytes, replacing) = (self.last, self.bytes.as_slice().into(), self.replacing);
        let piece = Piece { partition, first, last, bytes, replacing };
        self.clear();
        Some(piece)
    }

    pub(super) fn clear(&mut self) {
        self.first = None;
        self.count = 0;
        self.replacing = 0;
        self.bytes.clear();
    }
}

/// Detects a row whose bytes are not those that were written.
fn checksum(first: u64, last: u64, bytes: &[u8]) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&first.to_le_bytes());
    hasher.update(&last.to_le_bytes());
    hasher.update(bytes);
    i64::from(hasher.finalize())
}
