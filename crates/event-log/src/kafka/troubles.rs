//! What keeps partitions from being read, each partition for itself.
//!
//! librdkafka reports a batch that it cannot decode (damaged, or in an unknown compression) as an error with the batch's offset,
//! and fetches the same batch again, without end. Its position is then the offset behind the error's, although nothing was read.
//! Such a batch is passed over after [`PASS_OVER_AFTER`]: the reader seeks one offset further until librdkafka finds the
//! next batch, because nothing that can be trusted says where the damaged one ends. `check.crcs` stays off: after a checksum
//! error librdkafka 2.12 goes on at a wrong place in the response, and can take garbage for its next offset.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

use super::message::ReadError;
use crate::PassedOver;

/// What librdkafka says of a batch that it cannot decode. The last one means that it found no whole record in a gigabyte.
const UNREADABLE: [RDKafkaErrorCode; 4] = [
    RDKafkaErrorCode::BadMessage,
    RDKafkaErrorCode::BadCompression,
    RDKafkaErrorCode::NotImplemented,
    RDKafkaErrorCode::MessageSizeTooLarge,
];
/// How long a batch may be unreadable until it is passed over: time enough for another replica to become leader.
const PASS_OVER_AFTER: Duration = Duration::from_secs(5);
/// How long trouble may last until it is a failure of the view. librdkafka connects again within a second.
const LASTS_FROM: Duration = Duration::from_secs(3);
/// Without a further error for so long, trouble is over: librdkafka repeats one at each fetch.
const OVER_AFTER: Duration = Duration::from_secs(3);

/// The troubles of a reader's partitions.
#[derive(Default)]
pub(super) struct Troubles {
    partitions: BTreeMap<u32, Trouble>,
    passed_over: Vec<PassedOver>,
}

struct Trouble {
    /// Where the reader stood.
    start: u64,
    /// Where it stands: behind `start` while a batch is being passed over.
    sought: u64,
    /// Where librdkafka takes itself to be since the last error.
    claimed: u64,
    /// Whether there was an error since the last seek: an older one says nothing of where the reader stands now.
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
    /// Whether librdkafka means a batch that it cannot decode.
    pub(super) fn is_unreadable(error: &ReadError) -> bool {
        error.error.rdkafka_error_code().is_some_and(|code| UNREADABLE.contains(&code))
    }

    /// Notes an error of `partition`, of which the reader stands at `position`.
    pub(super) fn note(&mut self, partition: u32, position: u64, error: &ReadError) {
        let (now, is_unreadable) = (Instant::now(), Troubles::is_unreadable(error));
        let claimed = error.offset.map_or(0, |offset| offset + 1);
        match self.partitions.get_mut(&partition) {
            Some(trouble) if error.offset.is_none_or(|offset| offset <= trouble.sought) && !trouble.is_over() => {
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

    /// Notes that the record at `offset` was read: whatever the trouble was, librdkafka is behind it.
    #[inline]
    pub(super) fn read(&mut self, partition: u32, offset: u64) {
        if self.partitions.is_empty() {
            return;
        }
        let Some(mut trouble) = self.partitions.remove(&partition) else { return };
        if trouble.is_unreadable && offset > trouble.start {
            self.passed_over.extend(pass_over(partition, &mut trouble));
        }
        tracing::info!(partition, offset, "the partition is read again");
    }

    /// Whether the position that librdkafka claims for `partition` comes of an error, and not of what was read.
    pub(super) fn disproves(&self, partition: u32, claimed: u64) -> bool {
        let is_of_error = |trouble: &Trouble| trouble.is_unreadable && claimed <= trouble.claimed.max(trouble.sought);
        self.partitions.get(&partition).is_some_and(is_of_error)
    }

    /// The partitions to be read one offset further on, each with that offset.
    pub(super) fn seek(&mut self) -> Vec<(u32, u64)> {
        let mut seeks = Vec::new();
        for (partition, trouble) in &mut self.partitions {
            if trouble.is_unreadable && trouble.is_current && trouble.since.elapsed() >= PASS_OVER_AFTER {
                self.passed_over.extend(pass_over(*partition, trouble));
                trouble.sought += 1;
                trouble.is_current = false;
                seeks.push((*partition, trouble.sought));
            }
        }
        seeks
    }

    /// What lasts, for a person.
    pub(super) fn lasting(&self) -> Option<String> {
        let lasts = |trouble: &Trouble| trouble.since.elapsed() >= LASTS_FROM && !trouble.is_over();
        let lasting = self.partitions.iter().filter(|(_, trouble)| lasts(trouble));
        let text = |(partition, trouble): (&u32, &Trouble)| {
            format!("partition {partition} cannot be read at offset {}: {}", trouble.sought, trouble.reason)
        };
        let texts: Vec<_> = lasting.map(text).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    /// What was passed over since the last call.
    pub(super) fn take_passed_over(&mut self) -> Vec<PassedOver> {
        std::mem::take(&mut self.passed_over)
    }
}

/// The batch as it is reported, once.
fn pass_over(partition: u32, trouble: &mut Trouble) -> Option<PassedOver> {
    if std::mem::replace(&mut trouble.is_passed_over, true) {
        return None;
    }
    let (offset, reason) = (trouble.start, trouble.reason.clone());
    tracing::warn!(partition, offset, reason, "passing over a batch that cannot be decoded");
    Some(PassedOver { partition, offset, reason })
}
