//! Samples of the event log, which show at the next start whether the log is the one that a checkpoint was made of.
//!
//! In each range of [`SPACING`] offsets the first record is sampled. Not a fixed offset: transaction markers and compaction leave
//! gaps. Reading a range again finds the same samples, except those that were compacted.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hasher;

use event_log::{Positions, RecordRef};
use siphasher::sip::SipHasher13;

/// The length of a range, in offsets.
const SPACING: u64 = 256;

/// The number of samples of a partition that are kept, the last ones. One match is enough; compaction may remove some.
pub(crate) const SAMPLES: usize = 8;

/// The headers that identify a publication: the event, and the request or the resync that it comes from.
const IDENTIFYING_HEADERS: [&str; 2] = ["ce_id", "traceparent"];

/// The identity of a record that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) offset: u64,
    /// The hash of key, value and [`IDENTIFYING_HEADERS`].
    pub(crate) hash: u64,
}

/// How far a partition was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// The next offset to read.
    pub(crate) position: u64,
    /// The last samples before the position, in the order of offsets.
    pub(crate) samples: Vec<Sample>,
}

impl Reached {
    /// Whether all samples are before `start`, the start of the log.
    fn is_before(&self, start: u64) -> bool {
        self.samples.last().is_some_and(|sample| sample.offset < start)
    }
}

/// How far each partition was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mark(pub(crate) BTreeMap<u32, Reached>);

impl Mark {
    /// The positions to read from, so that the samples are read again.
    pub(crate) fn start(&self) -> Positions {
        let start = |reached: &Reached| reached.samples.first().map_or(0, |sample| sample.offset);
        self.0.iter().map(|(partition, reached)| (*partition, start(reached))).collect()
    }

    /// The positions.
    pub(crate) fn positions(&self) -> Positions {
        self.0.iter().map(|(partition, reached)| (*partition, reached.position)).collect()
    }

    /// Why a log that ends at `ends` cannot be the one that was read, if so. The number of partitions never decreases.
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

/// Whether the log is the one of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Undecided: not all samples were read yet.
    Open,
    /// The log is the same.
    Proven,
    /// The log is another one, or no sample is left in it. Contains the reason.
    Disproved(String),
}

/// Selects the records to sample.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    /// The range of the last record of each partition.
    ranges: Vec<Option<u64>>,
}

impl Sampler {
    /// Returns the sample of a record that is the first one in its range. Records come in the order of reading.
    #[inline]
    pub(crate) fn sample(&mut self, record: RecordRef<'_>) -> Option<Sample> {
        let (partition, range) = (record.partition as usize, Some(record.offset / SPACING));
        if self.ranges.get(partition) == Some(&range) {
            return None;
        }
        self.ranges.resize(self.ranges.len().max(partition + 1), None);
        self.ranges[partition] = range;
        Some(Sample { offset: record.offset, hash: hash(record) })
    }
}

/// The samples that were read, compared with those of the checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    partitions: BTreeMap<u32, PartitionSamples>,
    /// The mark of the checkpoint.
    expected: Mark,
    /// Whether offsets went back: the topic was re-created while it was read.
    is_recreated: bool,
}

#[derive(Debug, Default)]
struct PartitionSamples {
    last: VecDeque<Sample>,
    /// Whether all expected samples that were read matched; `None` if none was read.
    matches: Option<bool>,
}

impl Samples {
    /// Expects the samples of `mark`.
    pub(crate) fn expecting(mark: Mark) -> Self {
        Samples { expected: mark, ..Samples::default() }
    }

    /// Adds a sample. Samples come in the order of reading.
    pub(crate) fn add(&mut self, number: u32, sample: Sample) {
        let partition = self.partitions.entry(number).or_default();
        let expected = self.expected.0.get(&number).map_or(&[][..], |reached| &reached.samples);
        if let Some(expected) = expected.iter().find(|expected| expected.offset == sample.offset) {
            partition.matches = Some(*expected == sample && partition.matches != Some(false));
        }
        self.is_recreated |= partition.last.back().is_some_and(|last| last.offset >= sample.offset);
        partition.last.push_back(sample);
        if partition.last.len() > SAMPLES {
            partition.last.pop_front();
        }
    }

    /// Whether the log is the expected one. It starts at `starts` and was read up to `positions`, and to its end if `to_the_end`.
    /// Samples before its start were deleted and prove nothing: a re-created topic starts at 0.
    pub(crate) fn verdict(&self, positions: &Positions, to_the_end: bool, starts: &Positions) -> Verdict {
        let mut verdict = Verdict::Proven;
        for (number, reached) in self.expected.0.iter().filter(|(_, reached)| reached.position > 0) {
            match self.partitions.get(number).and_then(|partition| partition.matches) {
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

    /// The mark of a log that was read, and is durable, up to `positions`. `None` if nothing was read, or if samples are missing
    /// that would identify the log later.
    pub(crate) fn mark(&self, positions: &Positions) -> Option<Mark> {
        let mut reached = BTreeMap::new();
        for (number, position) in positions {
            let last = self.partitions.get(number).map(|partition| &partition.last);
            let samples = last.into_iter().flatten().filter(|sample| sample.offset < *position).copied().collect();
            reached.insert(*number, Reached { position: *position, samples });
        }
        let is_identifiable = reached.values().all(|reached| reached.position == 0 || !reached.samples.is_empty());
        let any = reached.values().any(|reached| reached.position > 0);
        (is_identifiable && any && !self.is_recreated).then_some(Mark(reached))
    }
}

fn hash(record: RecordRef<'_>) -> u64 {
    let mut hasher = SipHasher13::new();
    let [id, trace] = IDENTIFYING_HEADERS.map(|name| record.headers.get(name));
    for part in [record.key, record.value, id, trace] {
        // The length separates the parts, and an absent part from an empty one.
        hasher.write_u64(part.map_or(0, |part| part.len() as u64 + 1));
        hasher.write(part.unwrap_or_default());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;
