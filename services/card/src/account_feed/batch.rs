//! Batches: what one poll of the log brings, decoded, on its way to the view.

use std::time::{Duration, Instant};

use account_events::{AccountEvent, Unintelligible};
use event_log::{LogError, Positions, Reader, RecordRef};
use process::SampledLog;

use crate::log_samples::{Sample, Sampler};
use crate::quarantine::{Quarantine, QuarantinedRecord};

/// What one poll brought, in the order it came.
pub(super) struct Batch {
    /// The events that its records told of.
    pub(super) events: Vec<AccountEvent>,
    /// How many records it had.
    pub(super) records: usize,
    /// How many of them told of nothing.
    pub(super) poison: usize,
    /// Those of them that are to be kept.
    pub(super) quarantined: Vec<QuarantinedRecord>,
    /// Its records that were sampled, each with its partition.
    pub(super) samples: Vec<(u32, Sample)>,
    /// Where the view stands once this is applied.
    pub(super) positions: Positions,
    /// What ended it early. What came before is to be applied all the same.
    pub(super) failure: Option<LogError>,
}

/// Reads the log in batches.
pub(super) struct BatchReader<'a> {
    reader: Box<dyn Reader>,
    quarantine: &'a mut Quarantine,
    sampler: &'a mut Sampler,
    /// How many events the last batch had, which is room enough for most.
    expected: usize,
    /// Lines of records that went to quarantine: a few a second are logged and the others counted.
    lines: SampledLog,
}

impl<'a> BatchReader<'a> {
    pub(super) fn new(reader: Box<dyn Reader>, quarantine: &'a mut Quarantine, sampler: &'a mut Sampler) -> Self {
        BatchReader { reader, quarantine, sampler, expected: 0, lines: SampledLog::new() }
    }

    /// Goes on with `reader`, for a view that is empty again.
    pub(super) fn begin_anew(&mut self, reader: Box<dyn Reader>) {
        (self.reader, *self.sampler) = (reader, Sampler::default());
    }

    /// The next offset to read of each partition.
    pub(super) fn positions(&self) -> Positions {
        self.reader.positions()
    }

    /// The same, but nowhere ahead of what the log has durably.
    pub(super) fn durable_positions(&self) -> Positions {
        self.reader.durable_positions()
    }

    /// What has come; waits up to `timeout` for it.
    pub(super) fn read(&mut self, timeout: Duration) -> Batch {
        let BatchReader { reader, quarantine, sampler, lines, .. } = self;
        let mut events = Vec::with_capacity(self.expected);
        let (mut samples, mut poison) = (Vec::new(), 0);
        // Asked for once, as in `AccountFeed::apply`.
        let now = Instant::now();
        let mut records = 0;
        let polled = reader.poll(timeout, &mut |record| {
            records += 1;
            samples.extend(sampler.sample(record).map(|sample| (record.partition, sample)));
            match AccountEvent::decode(record) {
                Ok(event) => events.push(event),
                Err(reason) => {
                    poison += 1;
                    say_quarantined(lines, record, &reason, now);
                    quarantine.take(record, reason);
                }
            }
        });
        if records == 0 {
            say_left_out(lines.flush());
        }
        self.expected = events.len();
        let (quarantined, positions) = (self.quarantine.taken(), self.reader.positions());
        Batch { events, records, poison, quarantined, samples, positions, failure: polled.err() }
    }
}

fn say_quarantined(lines: &mut SampledLog, record: RecordRef<'_>, reason: &Unintelligible, now: Instant) {
    let Some(left_out) = lines.allow(now) else { return };
    let (partition, offset, code) = (record.partition, record.offset, reason.code());
    tracing::warn!(partition, offset, code, %reason, left_out, "a record went to quarantine");
}

/// Says after a burst what was left out of it.
fn say_left_out(records: u64) {
    if records > 0 {
        tracing::warn!(records, "left out the lines of {records} records that went to quarantine");
    }
}
