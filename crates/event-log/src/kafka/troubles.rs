//! Partitions that cannot be read.
//!
//! librdkafka reports a batch that it cannot decode (damaged, or in an unknown compression) as an error with the batch's offset, and
//! fetches the batch again endlessly. Its position is then the error's offset + 1, although nothing was read. Such a batch is skipped
//! after [`SKIP_AFTER`]: the reader seeks one offset further until librdkafka finds the next batch, because the damaged batch cannot be
//! trusted to say where it ends. `check.crcs` stays off: after a checksum error librdkafka 2.12 continues at a wrong place.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

use super::message::ReadError;
use crate::PassedOver;

/// The errors of a batch that cannot be decoded. The last one means that librdkafka found no whole record in a gigabyte.
const UNREADABLE: [RDKafkaErrorCode; 4] = [
    RDKafkaErrorCode::BadMessage,
    RDKafkaErrorCode::BadCompression,
    RDKafkaErrorCode::NotImplemented,
    RDKafkaErrorCode::MessageSizeTooLarge,
];
/// How long a batch must be unreadable to be skipped: enough time for another replica to become leader.
const SKIP_AFTER: Duration = Duration::from_secs(5);
/// How long an error must last to be reported. librdkafka reconnects within a second.
const LASTS_FROM: Duration = Duration::from_secs(3);
/// An error that has not recurred for this long is over. librdkafka repeats an error at each fetch.
const OVER_AFTER: Duration = Duration::from_secs(3);

/// The partitions of a reader that cannot be read.
#[derive(Default)]
pub(super) struct Troubles {
    partitions: BTreeMap<u32, Trouble>,
    passed_over: Vec<PassedOver>,
}

struct Trouble {
    /// The reader's position when the error occurred.
    start: u64,
    /// The reader's position now: after `start` while a batch is skipped.
    sought: u64,
    /// librdkafka's position after the last error.
    claimed: u64,
    /// Whether an error occurred since the last seek. An earlier error says nothing about the position now.
    is_current: bool,
    since: Instant,
    last: Instant,
    reason: String,
    is_unreadable: bool,
    is_passed_over: bool,
}

impl Trouble {
    fn is_over(&self) -> bool {
        self.last.elapsed() > OVER_AFTER
    }
}

impl Troubles {
    /// Whether the error says that a batch cannot be decoded.
    pub(super) fn is_unreadable(error: &ReadError) -> bool {
        error.error.rdkafka_error_code().is_some_and(|code| UNREADABLE.contains(&code))
    }

    /// Records an error of `partition`, in which the reader is at `position`.
    pub(super) fn record_error(&mut self, partition: u32, position: u64, error: &ReadError) {
        let (now, is_unreadable) = (Instant::now(), Troubles::is_unreadable(error));
        let claimed = error.offset.map_or(0, |offset| offset + 1);
        match self.partitions.get_mut(&partition) {
            // A temporary error beside an unreadable batch says nothing about the batch at the position.
            Some(trouble) if trouble.is_unreadable && !is_unreadable && !trouble.is_over() => trouble.last = now,
            Some(trouble)
                if trouble.is_unreadable == is_unreadable
                    && error.offset.is_none_or(|offset| offset <= trouble.sought)
                    && !trouble.is_over() =>
            {
                (trouble.last, trouble.claimed, trouble.is_current) = (now, claimed, true);
            }
            _ => {
                let offset = error.offset.map_or(position, |offset| offset.max(position));
                let reason = if error.text.is_empty() { error.error.to_string() } else { error.text.clone() };
                tracing::warn!(partition, offset, reason, "a partition of the topic cannot be read, trying again");
                let trouble = Trouble {
                    start: offset,
                    sought: offset,
                    claimed,
                    is_current: true,
                    since: now,
                    last: now,
                    reason,
                    is_unreadable,
                    is_passed_over: false,
                };
                self.partitions.insert(partition, trouble);
            }
        }
    }

    /// Records that the record at `offset` was read, which ends the trouble of its partition.
    #[inline]
    pub(super) fn record_read(&mut self, partition: u32, offset: u64) {
        if self.partitions.is_empty() {
            return;
        }
        let Some(mut trouble) = self.partitions.remove(&partition) else { return };
        if trouble.is_unreadable && offset > trouble.start {
            self.passed_over.extend(report_skipped(partition, &mut trouble));
        }
        tracing::info!(partition, offset, "the partition is read again");
    }

    /// Whether the position that librdkafka claims for `partition` comes from an error and not from reading.
    pub(super) fn disproves(&self, partition: u32, claimed: u64) -> bool {
        let is_of_error = |trouble: &Trouble| trouble.is_unreadable && claimed <= trouble.claimed.max(trouble.sought);
        self.partitions.get(&partition).is_some_and(is_of_error)
    }

    /// Whether a batch of `partition` cannot be decoded, or was skipped and no record has been read since.
    pub(super) fn is_unreadable_at(&self, partition: u32) -> bool {
        self.partitions.get(&partition).is_some_and(|trouble| trouble.is_unreadable)
    }

    /// The seeks that are due, one offset further each: partition and offset.
    pub(super) fn due_seeks(&mut self) -> Vec<(u32, u64)> {
        let mut seeks = Vec::new();
        for (partition, trouble) in &mut self.partitions {
            if trouble.is_unreadable && trouble.is_current && trouble.since.elapsed() >= SKIP_AFTER {
                self.passed_over.extend(report_skipped(*partition, trouble));
                trouble.sought += 1;
                trouble.is_current = false;
                seeks.push((*partition, trouble.sought));
            }
        }
        seeks
    }

    /// The errors that last, as text for operators.
    pub(super) fn lasting(&self) -> Option<String> {
        let lasts = |trouble: &Trouble| trouble.since.elapsed() >= LASTS_FROM && !trouble.is_over();
        let lasting = self.partitions.iter().filter(|(_, trouble)| lasts(trouble));
        let text = |(partition, trouble): (&u32, &Trouble)| {
            format!("partition {partition} cannot be read at offset {}: {}", trouble.sought, trouble.reason)
        };
        let texts: Vec<_> = lasting.map(text).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    /// The batches that were skipped since the last call.
    pub(super) fn take_passed_over(&mut self) -> Vec<PassedOver> {
        std::mem::take(&mut self.passed_over)
    }
}

/// The report of a skipped batch, the first time.
fn report_skipped(partition: u32, trouble: &mut Trouble) -> Option<PassedOver> {
    if std::mem::replace(&mut trouble.is_passed_over, true) {
        return None;
    }
    let (offset, reason) = (trouble.start, trouble.reason.clone());
    tracing::warn!(partition, offset, reason, "skipping a batch that cannot be decoded");
    Some(PassedOver { partition, offset, reason })
}

#[cfg(test)]
mod tests {
    use rdkafka::error::KafkaError;

    use super::*;

    fn error(code: RDKafkaErrorCode) -> ReadError {
        ReadError {
            error: KafkaError::MessageConsumption(code),
            partition: Some(0),
            offset: Some(5),
            text: String::new(),
        }
    }

    #[test]
    fn an_unreadable_batch_is_noticed_behind_another_error() {
        let mut troubles = Troubles::default();
        troubles.record_error(0, 5, &error(RDKafkaErrorCode::UnknownTopicOrPartition));
        troubles.record_error(0, 5, &error(RDKafkaErrorCode::BadMessage));
        assert!(troubles.partitions[&0].is_unreadable, "else the batch is never skipped");
    }

    #[test]
    fn a_temporary_error_skips_no_record() {
        let mut troubles = Troubles::default();
        troubles.record_error(0, 5, &error(RDKafkaErrorCode::BadMessage));
        // As after a seek: the next batch may be whole.
        troubles.partitions.get_mut(&0).unwrap().is_current = false;
        troubles.record_error(0, 5, &error(RDKafkaErrorCode::UnknownTopicOrPartition));
        assert!(!troubles.partitions[&0].is_current, "the reader would seek past what it has not tried to read");
    }
}
