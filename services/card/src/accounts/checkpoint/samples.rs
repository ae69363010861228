//! Samples of the event log: what shows, at the next start, that the log is still the one that a checkpoint of the view was
//! made of.
//!
//! Of each stretch of [`SPACING`] offsets that holds any record the first one is sampled, wherever it stands: markers of
//! transactions and compaction leave gaps, and a fixed offset in each stretch might be a gap each time. Whoever reads a
//! stretch again meets the same samples, but for those that were compacted away.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hasher;

use event_log::{Positions, RecordRef};
use siphasher::sip::SipHasher13;

/// One record is sampled of as many offsets.
const SPACING: u64 = 256;

/// The samples that are kept of a partition: the last ones. Compaction may remove some, and one is enough.
pub(crate) const SAMPLES: usize = 8;

/// The headers that tell one publication from others: the event, and the request that it comes of, or the telling of an
/// account's state.
const NAMING_HEADERS: [&str; 2] = ["ce_id", "traceparent"];

/// A record that was read, as far as it takes to know it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) offset: u64,
    /// Of key, value and [`NAMING_HEADERS`].
    pub(crate) hash: u64,
}

/// How far a partition was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// The next offset to read.
    pub(crate) position: u64,
    /// The last records sampled before it, in the order of their offsets; one at least behind the log's start.
    pub(crate) samples: Vec<Sample>,
}

impl Reached {
    /// Whether a log that begins at `start` has none of the samples any more.
    fn is_before(&self, start: u64) -> bool {
        self.samples.last().is_some_and(|sample| sample.offset < start)
    }
}

/// How far the log was read, by partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mark(pub(crate) BTreeMap<u32, Reached>);

impl Mark {
    /// Where to read on, so that the samples are met again.
    pub(crate) fn start(&self) -> Positions {
        let start = |reached: &Reached| reached.samples.first().map_or(0, |sample| sample.offset);
        self.0.iter().map(|(partition, reached)| (*partition, start(reached))).collect()
    }

    /// The positions.
    pub(crate) fn positions(&self) -> Positions {
        self.0.iter().map(|(partition, reached)| (*partition, reached.position)).collect()
    }

    /// Why the log that ends at `ends` cannot be the one that was read, if so. A topic may get more partitions, never fewer.
    pub(crate) fn contradiction(&self, ends: &Positions) -> Option<String> {
        self.positions().into_iter().find_map(|(partition, position)| match ends.get(&partition) {
            None => Some(format!("it has {} partitions, and {} were read", ends.len(), self.0.len())),
            Some(end) if position > *end => {
                Some(format!("partition {partition} ends at {end}, and was read up to {position}"))
            }
            Some(_) => None,
        })
    }
}

/// Whether the log is the one that was read before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not all of the samples have been read yet.
    Open,
    /// It is.
    Proven,
    /// It is not, or nothing is left that would show it; why, for a person.
    Disproved(String),
}

/// Chooses the records that are sampled, where they are read.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    /// The stretch that the last record of each partition was in.
    stretches: Vec<Option<u64>>,
}

impl Sampler {
    /// Looks at a record, in the order of reading.
    #[inline]
    pub(crate) fn sample(&mut self, record: RecordRef<'_>) -> Option<Sample> {
        let (partition, stretch) = (record.partition as usize, Some(record.offset / SPACING));
        if self.stretches.get(partition) == Some(&stretch) {
            return None;
        }
        self.stretches.resize(self.stretches.len().max(partition + 1), None);
        self.stretches[partition] = stretch;
        Some(Sample { offset: record.offset, hash: hash(record) })
    }
}

/// The samples of what was read, compared with what was read before.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    partitions: BTreeMap<u32, PartitionSamples>,
    /// What was read before.
    expected: Mark,
    /// Whether the log went back to where it had been read: it was made anew, and the view knows more than it tells.
    is_anew: bool,
}

#[derive(Debug, Default)]
struct PartitionSamples {
    last: VecDeque<Sample>,
    /// Whether a sample was met as expected, or another record in its place.
    met: Option<bool>,
}

impl Samples {
    /// Samples of a log that is expected to be the one that was read up to `mark`.
    pub(crate) fn expecting(mark: Mark) -> Self {
        Samples { expected: mark, ..Samples::default() }
    }

    /// Takes a sample, in the order of reading.
    pub(crate) fn take(&mut self, number: u32, sample: Sample) {
        let partition = self.partitions.entry(number).or_default();
        let expected = self.expected.0.get(&number).map_or(&[][..], |reached| &reached.samples);
        if let Some(expected) = expected.iter().find(|expected| expected.offset == sample.offset) {
            partition.met = Some(*expected == sample && partition.met != Some(false));
        }
        self.is_anew |= partition.last.back().is_some_and(|last| last.offset >= sample.offset);
        partition.last.push_back(sample);
        if partition.last.len() > SAMPLES {
            partition.last.pop_front();
        }
    }

    /// Whether the log, which begins at `starts`, is the one that was expected, when it has been read up to `positions`, and
    /// `to_the_end` or not. Samples from before its start were deleted with all else there, and say nothing against it: a topic
    /// that was made anew begins at 0.
    pub(crate) fn verdict(&self, positions: &Positions, to_the_end: bool, starts: &Positions) -> Verdict {
        let mut verdict = Verdict::Proven;
        for (number, reached) in self.expected.0.iter().filter(|(_, reached)| reached.position > 0) {
            match self.partitions.get(number).and_then(|partition| partition.met) {
                Some(true) => {}
                Some(false) => return Verdict::Disproved(format!("partition {number} holds other records")),
                None if reached.is_before(starts.get(number).copied().unwrap_or(0)) => {}
                None if to_the_end || positions.get(number).is_some_and(|position| *position >= reached.position) => {
                    return Verdict::Disproved(format!("none of the records sampled of partition {number} is left"));
                }
                None => verdict = Verdict::Open,
            }
        }
        verdict
    }

    /// What is to be kept of a log that was read, and is durable, up to `positions`. None if nothing was read, or if it could
    /// not be shown later that it is the same log.
    pub(crate) fn mark(&self, positions: &Positions) -> Option<Mark> {
        let mut reached = BTreeMap::new();
        for (number, position) in positions {
            let last = self.partitions.get(number).map(|partition| &partition.last);
            let samples = last.into_iter().flatten().filter(|sample| sample.offset < *position).copied().collect();
            reached.insert(*number, Reached { position: *position, samples });
        }
        let provable = reached.values().all(|reached| reached.position == 0 || !reached.samples.is_empty());
        let any = reached.values().any(|reached| reached.position > 0);
        (provable && any && !self.is_anew).then_some(Mark(reached))
    }
}

fn hash(record: RecordRef<'_>) -> u64 {
    let mut hasher = SipHasher13::new();
    let [id, trace] = NAMING_HEADERS.map(|name| record.headers.get(name));
    for part in [record.key, record.value, id, trace] {
        // None and each length are told from all others.
        hasher.write_u64(part.map_or(0, |part| part.len() as u64 + 1));
        hasher.write(part.unwrap_or_default());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;
