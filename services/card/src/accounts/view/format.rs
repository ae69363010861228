//! A checkpoint of the view: the view on disk, with how far the log was read (its positions), so that a start reads what has
//! come since and not the whole log.
//!
//! The file is [`MAGIC`], a block that says how far the log was read and how the ids were hashed, and a block for each shard:
//! its slots as they lie in memory, so that nothing is hashed again when it is loaded. A block is its length, its bytes and
//! a checksum that goes on from the block before, all numbers in 64 bits, little endian. So a file that is torn, cut,
//! garbled or not ours is noticed, and nothing of it gets into the view: it only costs a replay.
//!
//! It is written while the feed goes on applying events. That is sound since the mark is taken first, and the shards are read
//! after: the view may know more than the mark says, never less. Reading again what it knows already changes nothing (the
//! maximum is taken, and events without a version are left out there), and what it knows too early is true: every
//! event tells of a row that is already committed.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use account_events::{AccountId, AccountStatus, DECODE_VERSION};

use super::gathered::Gathered;
use super::shard::{Counted, SEGMENT_BYTES, Shard, from_words};
use super::{AccountView, SHARD_COUNT, ViewWriter, on_two_threads, place, unpack};
use crate::accounts::checkpoint::samples::{Mark, Reached, SAMPLES, Sample};

/// Whose file it is, and the version of what follows. Another place for an id, or another state for a
/// status, is another version; so is another [`DECODE_VERSION`], which stands in the file too.
const MAGIC: [u8; 8] = *b"tdmView1";

/// The bytes of a number.
const WORD: u64 = size_of::<u64>() as u64;

/// What the shards depend on.
const LAYOUT: [u64; 3] = [SHARD_COUNT as u64, SEGMENT_BYTES as u64, DECODE_VERSION as u64];

/// Partitions of the log, at most, so that a length is not believed that cannot be.
const MAX_PARTITIONS: usize = 100_000;

/// Bytes of the block that says how far the log was read, at most, so that nothing is made room for that cannot be one: a layout, two
/// seeds, a count, and for each partition three numbers and two a sample.
const MAX_HEAD_BYTES: usize = (LAYOUT.len() + 3 + MAX_PARTITIONS * (3 + 2 * SAMPLES)) * WORD as usize;

/// Why a file is no checkpoint to start from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// There is none.
    #[error("there is none")]
    Missing,
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// It is another program's, or of another version of this one.
    #[error("it is not a checkpoint of this version")]
    Foreign,
    /// It ends too soon.
    #[error("it is cut short")]
    Cut,
    /// Something in it is not as it was written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

/// A checkpoint as it was read, all of it.
pub(crate) struct Checkpoint {
    /// How far the log was read.
    pub(crate) mark: Mark,
    seeds: [u64; 2],
    shards: Vec<Counted>,
}

/// Writes the view, which knows at least what the log has before `mark`, as long as it may `go_on`. Returns whether it is
/// complete.
pub(crate) fn write(
    view: &AccountView,
    mark: &Mark,
    out: &mut impl Write,
    go_on: &dyn Fn() -> bool,
) -> io::Result<bool> {
    out.write_all(&MAGIC)?;
    let mut written = Written { checksum: 0 };
    let mut bytes: Vec<u8> = head(view.0.seeds(), mark).into_iter().flat_map(u64::to_le_bytes).collect();
    written.write(out, &bytes)?;
    for shard in &view.0.shards {
        if !go_on() {
            return Ok(false);
        }
        bytes.clear();
        shard.load_full().copy_to(&mut bytes);
        written.write(out, &bytes)?;
    }
    Ok(true)
}

/// Reads what [`write()`] wrote.
pub(crate) fn read(file: &File) -> Result<Checkpoint, Unusable> {
    let mut magic = [0; MAGIC.len()];
    file.read_exact_at(&mut magic, 0)?;
    if magic != MAGIC {
        return Err(Unusable::Foreign);
    }
    let mut unread = Unread { place: MAGIC.len() as u64, end: file.metadata()?.len(), checksum: 0 };
    let head = unread.next(file)?;
    if head.length > MAX_HEAD_BYTES {
        return Err(Unusable::Foreign);
    }
    let mut bytes = vec![0; head.length];
    head.read(file, &mut bytes)?;
    let (words, _) = bytes.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
    let (seeds, mark) = parse_head(&mut words).ok_or(Unusable::Foreign)?;
    let shards = read_shards(file, &mut unread, seeds)?;
    match unread.place == unread.end {
        true => Ok(Checkpoint { mark, seeds, shards }),
        false => Err(Unusable::Damaged("something stands behind its end")),
    }
}

/// Two threads read a block each, straight into the memory of its shard.
fn read_shards(file: &File, unread: &mut Unread, seeds: [u64; 2]) -> Result<Vec<Counted>, Unusable> {
    let left = Mutex::new((0..SHARD_COUNT, unread));
    let next = || {
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
        let (numbers, unread) = &mut *left;
        numbers.next().map(|number| (number, unread.next(file)))
    };
    let read_shard = |number, block: Result<Block, Unusable>| {
        let block = block?;
        let shard = Shard::read(block.length, |bytes| block.read(file, bytes))?;
        if is_ours(number, &shard, seeds) { Ok(Counted::of(shard)) } else { Err(Unusable::Foreign) }
    };
    let read_all = || {
        let mut shards = Vec::with_capacity(SHARD_COUNT);
        while let Some((number, block)) = next() {
            let shard = read_shard(number, block);
            if shard.is_err() {
                // There is nothing to read on for.
                left.lock().unwrap_or_else(PoisonError::into_inner).0 = 0..0;
            }
            shards.push((number, shard));
        }
        shards
    };
    let mut shards: Vec<_> = on_two_threads("view-loader", read_all).into_iter().flatten().collect();
    shards.sort_by_key(|(number, _)| *number);
    // The first error is told: behind a length that is wrong there may be a block that is right, but of another shard.
    shards.into_iter().map(|(_, shard)| shard).collect()
}

fn head(seeds: [u64; 2], mark: &Mark) -> Vec<u64> {
    let mut words = [LAYOUT.as_slice(), &seeds, &[mark.0.len() as u64]].concat();
    for (partition, reached) in &mark.0 {
        words.extend([u64::from(*partition), reached.position, reached.samples.len() as u64]);
        words.extend(reached.samples.iter().flat_map(|sample| [sample.offset, sample.hash]));
    }
    words
}

/// Whether the first account of the shard is where this binary looks for it.
fn is_ours(number: usize, shard: &Shard, seeds: [u64; 2]) -> bool {
    shard.accounts().next().is_none_or(|(id, _)| {
        let (shard_number, place) = place(seeds, from_words(id));
        shard_number == number && shard.has_room() && shard.find(id, place).is_ok()
    })
}

/// `None` if the shards that follow are none of this binary's.
fn parse_head(words: &mut impl Iterator<Item = u64>) -> Option<([u64; 2], Mark)> {
    let layout = [words.next()?, words.next()?, words.next()?];
    let seeds = [words.next()?, words.next()?];
    let mut mark = Mark::default();
    for _ in 0..usize::try_from(words.next()?).ok().filter(|count| *count <= MAX_PARTITIONS)? {
        let (partition, position) = (u32::try_from(words.next()?).ok()?, words.next()?);
        let count = usize::try_from(words.next()?).ok().filter(|count| *count <= SAMPLES)?;
        let mut sample = || Some(Sample { offset: words.next()?, hash: words.next()? });
        let samples = (0..count).map(|_| sample()).collect::<Option<_>>()?;
        mark.0.insert(partition, Reached { position, samples });
    }
    (layout == LAYOUT && words.next().is_none()).then_some((seeds, mark))
}

/// What is written of a file.
struct Written {
    /// Of the last block.
    checksum: u64,
}

impl Written {
    /// Writes a block of these bytes behind it.
    fn write(&mut self, out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
        self.checksum = checksum(self.checksum, bytes);
        out.write_all(&(bytes.len() as u64).to_le_bytes())?;
        out.write_all(bytes)?;
        out.write_all(&self.checksum.to_le_bytes())
    }
}

/// What is left of a file.
struct Unread {
    /// Where the next block begins.
    place: u64,
    /// Where the file ends.
    end: u64,
    /// The checksum of the block before.
    checksum: u64,
}

/// Where in a file the bytes of a block are.
struct Block {
    place: u64,
    length: usize,
    /// Of the block before, and of this one.
    checksums: [u64; 2],
}

impl Unread {
    /// The next block, whose bytes are left to be read.
    fn next(&mut self, file: &File) -> Result<Block, Unusable> {
        let place = self.place + WORD;
        let length = read_word(file, self.place)?;
        // Nothing is made room for that cannot be in the file.
        let behind = place.checked_add(length).filter(|behind| *behind < self.end).ok_or(Unusable::Cut)?;
        let before = std::mem::replace(&mut self.checksum, read_word(file, behind)?);
        self.place = behind + WORD;
        let length = usize::try_from(length).map_err(|_| Unusable::Cut)?;
        Ok(Block { place, length, checksums: [before, self.checksum] })
    }
}

impl Block {
    /// Reads its bytes, which are to be as many as `bytes`.
    fn read(&self, file: &File, bytes: &mut [u8]) -> Result<(), Unusable> {
        if bytes.len() != self.length {
            return Err(Unusable::Damaged("a length is wrong"));
        }
        file.read_exact_at(bytes, self.place)?;
        match checksum(self.checksums[0], bytes) == self.checksums[1] {
            true => Ok(()),
            false => Err(Unusable::Damaged("a checksum is wrong")),
        }
    }
}

/// Of these bytes and all before them, which have the checksum `before`.
fn checksum(before: u64, bytes: &[u8]) -> u64 {
    let mut hasher = crc32fast::Hasher::new_with_initial(before as u32);
    hasher.update(bytes);
    hasher.finalize().into()
}

fn read_word(file: &File, place: u64) -> io::Result<u64> {
    let mut bytes = [0; WORD as usize];
    file.read_exact_at(&mut bytes, place)?;
    Ok(u64::from_le_bytes(bytes))
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
    /// Fills an empty view, and returns with how many accounts. No reader may ask before the instance is ready
    /// (ARCHITECTURE.md C3).
    pub(crate) fn restore(&mut self, checkpoint: Checkpoint) -> u64 {
        for (seed, value) in self.table.seeds.iter().zip(checkpoint.seeds) {
            seed.store(value, Ordering::Relaxed);
        }
        self.replace(checkpoint.shards);
        self.table.counts.accounts.load(Ordering::Relaxed)
    }

    /// Forgets every account: they were another log's. No reader may ask before the instance is ready.
    pub(crate) fn clear(&mut self) {
        self.gathered.fill_with(Gathered::default);
        self.replace((0..SHARD_COUNT).map(|_| Counted::of(Shard::with_segments(0))).collect());
    }

    fn replace(&mut self, shards: Vec<Counted>) {
        let counts = &self.table.counts;
        counts.by_status.iter().chain([&counts.accounts]).for_each(|count| count.store(0, Ordering::Relaxed));
        shards.into_iter().enumerate().for_each(|(number, shard)| self.fill(number, shard));
    }

    /// Hands the deleted accounts of one shard to `close`, `at_once` at a time. `None` if there is no shard of this number, or no
    /// deleted account in any.
    pub(crate) fn each_deleted<E>(
        &self,
        shard: usize,
        at_once: usize,
        mut close: impl FnMut(Vec<AccountId>) -> Result<(), E>,
    ) -> Option<Result<(), E>> {
        let any = self.table.counts.by_status[AccountStatus::Deleted as usize].load(Ordering::Relaxed) > 0;
        let shard = self.table.shards.get(shard).filter(|_| any)?.load();
        let deleted = shard.accounts().filter(|(_, state)| unpack(*state).status == AccountStatus::Deleted);
        let mut deleted = deleted.map(|(id, _)| from_words(id)).peekable();
        while deleted.peek().is_some() {
            if let Err(error) = close(deleted.by_ref().take(at_once).collect()) {
                return Some(Err(error));
            }
        }
        Some(Ok(()))
    }
}

#[cfg(test)]
mod tests;
