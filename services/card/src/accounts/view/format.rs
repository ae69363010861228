//! The checkpoint file: the view with the positions in the event log that it includes.
//!
//! The file consists of [`MAGIC`], a head block (hash seeds, card database, positions, samples) and a block for each shard: its slots as they
//! are in memory, so that loading hashes nothing. A block is its length, its bytes and a checksum that continues the one of the
//! block before; all numbers have 64 bits in little-endian order. A file that is torn, damaged or foreign is detected, and none of
//! it is used; the view is rebuilt from the log instead.
//!
//! The file is written while the feed applies events. The positions are taken before the shards are read, so the shards may
//! include more events than the positions say, never fewer. Applying an event twice changes nothing, except one without a
//! version, which the feed skips (`feed/batch.rs`).

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::Ordering;

use account_events::{AccountId, AccountStatus, DECODE_VERSION};

use super::gathered::Gathered;
use super::shard::{SEGMENT_BYTES, Shard, from_words};
use super::{AccountView, SHARD_COUNT, ViewWriter, place, unpack};
use crate::accounts::checkpoint::samples::{Mark, Reached, Sample};

/// The file type and the version of the format. It changes with the hash function and with the packing of states.
const MAGIC: [u8; 8] = *b"tdmView2";

/// Bytes of a number.
const WORD: u64 = size_of::<u64>() as u64;

/// What the shards of a file depend on besides [`MAGIC`].
const LAYOUT: [u64; 3] = [SHARD_COUNT as u64, SEGMENT_BYTES as u64, DECODE_VERSION as u64];

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// There is no file.
    #[error("there is none")]
    Missing,
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// Another program wrote it, or another version of this one.
    #[error("it is not a checkpoint of this version")]
    Foreign,
    /// It belongs to another card database.
    #[error("it is of another card database")]
    OtherDatabase,
    /// The file ends too early.
    #[error("it is cut short")]
    Cut,
    /// A checksum or a length is wrong.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

/// Which card database the writer of a file used. The file may be newer than the database, which shows that the database was restored to
/// an older copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CardDatabase {
    /// The identity of the database.
    pub(crate) id: u64,
    /// The sequence of its last card.
    pub(crate) last_card: u64,
}

/// A file that was read completely.
pub(crate) struct Checkpoint {
    /// How far the log was read.
    pub(crate) mark: Mark,
    pub(crate) database: CardDatabase,
    seeds: [u64; 2],
    shards: Vec<Shard>,
}

/// Writes the view, which includes at least the records before `mark`, for as long as `go_on` returns true. Returns whether the
/// file is complete.
pub(crate) fn write(
    view: &AccountView,
    (mark, database): (&Mark, CardDatabase),
    out: &mut impl Write,
    go_on: &dyn Fn() -> bool,
) -> io::Result<bool> {
    out.write_all(&MAGIC)?;
    let mut bytes: Vec<u8> = head(view.0.seeds(), database, mark).into_iter().flat_map(u64::to_le_bytes).collect();
    let mut last_checksum = write_block(out, 0, &bytes)?;
    for shard in &view.0.shards {
        if !go_on() {
            return Ok(false);
        }
        bytes.clear();
        shard.load_full().copy_to(&mut bytes);
        last_checksum = write_block(out, last_checksum, &bytes)?;
    }
    Ok(true)
}

/// Reads what [`write()`] wrote.
pub(crate) fn read(file: &File) -> Result<Checkpoint, Unusable> {
    let (mut blocks, Head { seeds, database, mark }) = read_head(file)?;
    let mut shards = Vec::with_capacity(SHARD_COUNT);
    for number in 0..SHARD_COUNT {
        let bytes = blocks.next()?;
        if !bytes.len().is_multiple_of(SEGMENT_BYTES) {
            return Err(Unusable::Damaged("a length is wrong"));
        }
        let shard = Shard::from_bytes(&bytes);
        if !is_ours(number, &shard, seeds) {
            return Err(Unusable::Foreign);
        }
        shards.push(shard);
    }
    match blocks.unread {
        0 => Ok(Checkpoint { mark, database, seeds, shards }),
        _ => Err(Unusable::Damaged("data follows its end")),
    }
}

/// What the head block says.
struct Head {
    seeds: [u64; 2],
    database: CardDatabase,
    mark: Mark,
}

/// The card database that the head of a file names.
pub(crate) fn read_database(file: &File) -> Result<CardDatabase, Unusable> {
    read_head(file).map(|(_, head)| head.database)
}

/// Reads the head of a file, and returns the reader of the blocks that follow.
fn read_head(file: &File) -> Result<(BlockReader<'_>, Head), Unusable> {
    let mut blocks = BlockReader { file, unread: file.metadata()?.len(), last_checksum: 0 };
    let mut magic = [0; MAGIC.len()];
    blocks.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(Unusable::Foreign);
    }
    let bytes = blocks.next()?;
    let (words, _) = bytes.as_chunks::<{ WORD as usize }>();
    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
    let head = parse_head(&mut words).ok_or(Unusable::Foreign)?;
    Ok((blocks, head))
}

fn head(seeds: [u64; 2], CardDatabase { id, last_card }: CardDatabase, mark: &Mark) -> Vec<u64> {
    let mut words = [LAYOUT.as_slice(), &seeds, &[id, last_card, mark.0.len() as u64]].concat();
    for (partition, reached) in &mark.0 {
        words.extend([u64::from(*partition), reached.position, reached.samples.len() as u64]);
        words.extend(reached.samples.iter().flat_map(|sample| [sample.offset, sample.hash]));
    }
    words
}

/// Whether this binary finds the first account of the shard, that is, hashes ids as the writer of the file did.
fn is_ours(number: usize, shard: &Shard, seeds: [u64; 2]) -> bool {
    shard.accounts().next().is_none_or(|(id, _)| {
        let (shard_number, place) = place(seeds, from_words(id));
        shard_number == number && shard.has_room() && shard.find(id, place).is_ok()
    })
}

/// `None` if this binary cannot use the shards that follow.
fn parse_head(words: &mut impl Iterator<Item = u64>) -> Option<Head> {
    let layout = [words.next()?, words.next()?, words.next()?];
    let seeds = [words.next()?, words.next()?];
    let database = CardDatabase { id: words.next()?, last_card: words.next()? };
    let mut mark = Mark::default();
    for _ in 0..words.next()? {
        let (partition, position) = (u32::try_from(words.next()?).ok()?, words.next()?);
        let count = words.next()?;
        let mut sample = || Some(Sample { offset: words.next()?, hash: words.next()? });
        let samples = (0..count).map(|_| sample()).collect::<Option<_>>()?;
        mark.0.insert(partition, Reached { position, samples });
    }
    (layout == LAYOUT && words.next().is_none()).then_some(Head { seeds, database, mark })
}

/// Writes a block and returns its checksum.
fn write_block(out: &mut impl Write, last_checksum: u64, bytes: &[u8]) -> io::Result<u64> {
    let checksum = checksum(last_checksum, bytes);
    out.write_all(&(bytes.len() as u64).to_le_bytes())?;
    out.write_all(bytes)?;
    out.write_all(&checksum.to_le_bytes())?;
    Ok(checksum)
}

/// Reads the blocks of a file in order.
struct BlockReader<'a> {
    file: &'a File,
    /// Bytes that follow.
    unread: u64,
    last_checksum: u64,
}

impl BlockReader<'_> {
    /// The bytes of the next block.
    fn next(&mut self) -> Result<Vec<u8>, Unusable> {
        let length = self.read_word()?;
        // Checked before memory is allocated for it.
        if length.saturating_add(WORD) > self.unread {
            return Err(Unusable::Cut);
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| Unusable::Cut)?];
        self.read_exact(&mut bytes)?;
        self.last_checksum = checksum(self.last_checksum, &bytes);
        match self.read_word()? == self.last_checksum {
            true => Ok(bytes),
            false => Err(Unusable::Damaged("a checksum is wrong")),
        }
    }

    fn read_word(&mut self) -> io::Result<u64> {
        let mut bytes = [0; WORD as usize];
        self.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact(bytes)?;
        self.unread = self.unread.saturating_sub(bytes.len() as u64);
        Ok(())
    }
}

/// The checksum of all bytes up to the end of `bytes`, where those before have the checksum `last`.
fn checksum(last: u64, bytes: &[u8]) -> u64 {
    let mut hasher = crc32fast::Hasher::new_with_initial(last as u32);
    hasher.update(bytes);
    hasher.finalize().into()
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Unusable::Missing,
            ErrorKind::UnexpectedEof => Unusable::Cut,
            _ => Unusable::Unreadable(error),
        }
    }
}

impl ViewWriter {
    /// Fills an empty view, and returns the number of accounts. No request reads the view meanwhile (ARCHITECTURE.md C3).
    pub(crate) fn restore(&mut self, checkpoint: Checkpoint) -> u64 {
        for (seed, value) in self.table.seeds.iter().zip(checkpoint.seeds) {
            seed.store(value, Ordering::Relaxed);
        }
        self.replace_shards(checkpoint.shards)
    }

    /// Removes every account: they belong to another log. No request reads the view meanwhile.
    pub(crate) fn clear(&mut self) {
        self.gathered.fill_with(Gathered::default);
        self.replace_shards((0..SHARD_COUNT).map(|_| Shard::with_capacity(0)).collect());
    }

    fn replace_shards(&mut self, shards: Vec<Shard>) -> u64 {
        let mut by_status = [0; AccountStatus::ALL.len()];
        for (slot, shard) in self.table.shards.iter().zip(shards) {
            by_status.iter_mut().zip(shard.count_by_status()).for_each(|(sum, count)| *sum += count);
            slot.store(shard.into());
        }
        let (counts, accounts) = (&self.table.counts, by_status.iter().sum());
        counts.accounts.store(accounts, Ordering::Relaxed);
        counts.by_status.iter().zip(by_status).for_each(|(counter, count)| counter.store(count, Ordering::Relaxed));
        accounts
    }

    /// The deleted accounts of one shard. `None` if the number is beyond the last shard or the view has no deleted account.
    pub(crate) fn deleted_accounts(&self, shard: usize) -> Option<Vec<AccountId>> {
        let any = self.table.counts.by_status[AccountStatus::Deleted as usize].load(Ordering::Relaxed) > 0;
        let shard = self.table.shards.get(shard).filter(|_| any)?.load();
        let deleted = shard.accounts().filter(|(_, state)| unpack(*state).status == AccountStatus::Deleted);
        Some(deleted.map(|(id, _)| from_words(id)).collect())
    }
}

#[cfg(test)]
mod tests;
