//! A batch: the decoded records of one poll.

use std::sync::Arc;
use std::time::{Duration, Instant};

use account_events::{AccountEvent, AccountStatus};
use event_log::{LogError, Positions, Reader};

use super::sampled_log::SampledLog;
use crate::accounts::checkpoint::samples::{Sample, Sampler};
use crate::accounts::event_ring::{EventRing, PlacedEvent};
use crate::accounts::quarantine::{Place, Quarantine, QuarantinedRecord};

/// The result of one poll.
pub(super) struct Batch {
    /// The decoded events in the order of arrival.
    pub(super) events: Vec<AccountEvent>,
    /// The events with their places, if somebody listened when the first record came.
    pub(super) placed: Option<Vec<PlacedEvent>>,
    /// The number of records.
    pub(super) records: usize,
    /// The number of records that could not be decoded.
    pub(super) poison: usize,
    /// Those of them that go to quarantine.
    pub(super) quarantined: Vec<QuarantinedRecord>,
    /// The places in quarantine whose records were decoded now.
    pub(super) decoded: Vec<Place>,
    /// The records that were sampled, each with its partition.
    pub(super) samples: Vec<(u32, Sample)>,
    /// The positions after the batch.
    pub(super) positions: Positions,
    /// Why some partitions cannot be read, if so.
    pub(super) trouble: Option<String>,
    /// The failure that ended the poll. The events before it count.
    pub(super) failure: Option<LogError>,
}

/// Reads the log in batches.
pub(super) struct BatchReader<'a> {
    pub(super) reader: Box<dyn Reader>,
    quarantine: &'a mut Quarantine,
    /// Whether events are recorded for it.
    ring: Option<Arc<EventRing>>,
    /// Starts again with each reader, which adds a sample at most.
    sampler: Sampler,
    /// The positions that the view already includes, of the partitions that have not been read up to there. Past them a lower
    /// offset is that of another record: the topic was deleted and re-created.
    known: Positions,
    /// The capacity for the next batch: the number of events in the last one.
    expected: usize,
    /// Limits the log lines about records in quarantine.
    lines: SampledLog,
}

impl<'a> BatchReader<'a> {
    /// Reads with `reader` for a view that already includes the records before `known`.
    pub(super) fn new(reader: Box<dyn Reader>, known: Positions, quarantine: &'a mut Quarantine) -> Self {
        BatchReader {
            reader,
            quarantine,
            ring: None,
            sampler: Sampler::default(),
            known,
            expected: 0,
            lines: SampledLog::default(),
        }
    }

    /// Records events while somebody listens to `ring`.
    pub(super) fn recording(self, ring: Arc<EventRing>) -> Self {
        BatchReader { ring: Some(ring), ..self }
    }

    /// Continues with `reader` for an empty view.
    pub(super) fn restart(&mut self, reader: Box<dyn Reader>) {
        (self.reader, self.sampler, self.known) = (reader, Sampler::default(), Positions::new());
    }

    /// Reads the next batch, and waits up to `timeout` for it.
    pub(super) fn read(&mut self, timeout: Duration) -> Batch {
        let BatchReader { reader, quarantine, ring, sampler, known, lines, .. } = self;
        let mut events = Vec::with_capacity(self.expected);
        let (mut samples, mut poison) = (Vec::new(), 0);
        // One clock read for the batch, as in `AccountFeed::apply`.
        let now = Instant::now();
        let mut records = 0;
        let mut placed = Some(Vec::new());
        let polled = reader.poll(timeout, &mut |record| {
            if records == 0 && !ring.as_ref().is_some_and(|ring| ring.is_listened()) {
                placed = None;
            }
            records += 1;
            samples.extend(sampler.sample(record).map(|sample| (record.partition, sample)));
            match AccountEvent::decode(record) {
                // The view includes this event already. Applying it again would undo a later one.
                Ok(event) if is_by_arrival(&event) && is_known(known, record.partition, record.offset) => {}
                Ok(event) => {
                    quarantine.note_decoded((record.partition, record.offset));
                    if let Some(placed) = &mut placed {
                        placed.push(PlacedEvent::new(event, record));
                    }
                    events.push(event);
                }
                Err(reason) => {
                    poison += 1;
                    if let Some(left_out) = lines.allow(now) {
                        let (partition, offset, code) = (record.partition, record.offset, reason.code());
                        tracing::warn!(partition, offset, code, %reason, left_out, "a record went to quarantine");
                    }
                    // The quarantine has it, unless an operator removed it.
                    if !is_known(known, record.partition, record.offset) {
                        quarantine.take(record, reason);
                    }
                }
            }
        });
        if records == 0
            && let records @ 1.. = lines.flush()
        {
            tracing::warn!(records, "left out the lines of {records} records that went to quarantine");
        }
        self.expected = events.len();
        let trouble = reader.trouble();
        for batch in reader.passed_over() {
            poison += 1;
            if !is_known(known, batch.partition, batch.offset) {
                quarantine.take_passed_over(batch);
            }
        }
        let (quarantined, decoded) = (self.quarantine.taken(), self.quarantine.decoded());
        let positions = self.reader.positions();
        self.known.retain(|partition, end| positions.get(partition).is_none_or(|reached| reached < end));
        Batch {
            events,
            placed,
            records,
            poison,
            quarantined,
            decoded,
            samples,
            positions,
            trouble,
            failure: polled.err(),
        }
    }
}

/// Whether the event takes effect in the order of arrival. A creation does, since an event without a version may follow it.
fn is_by_arrival(event: &AccountEvent) -> bool {
    event.version <= Some(1) && event.status != AccountStatus::Deleted
}

fn is_known(known: &Positions, partition: u32, offset: u64) -> bool {
    known.get(&partition).is_some_and(|end| offset < *end)
}

#[cfg(test)]
mod tests {
    use event_log::{EmbeddedLog, EmbeddedSettings, EventLog, HeaderList, Record};

    use super::*;

    /// An event as the seed's producer writes it, without a version, or with `version`.
    fn record(status: &str, version: Option<&str>) -> Record {
        let id = "550e8400-e29b-41d4-a716-446655440000";
        let value = format!(r#"{{"type":"account.status_changed","account_id":"{id}","status":"{status}"}}"#);
        let headers: HeaderList = version.map(|version| ("ce_sequence", version)).into_iter().collect();
        Record { key: Some(id.into()), value: Some(value.into_bytes()), headers }
    }

    #[test]
    fn a_creation_over_a_checkpoint_does_not_undo_what_followed_on_it() {
        let folder = tempfile::tempdir().unwrap();
        let settings = EmbeddedSettings { partition_count: 1, ..EmbeddedSettings::at(folder.path().join("log.db")) };
        let log = EmbeddedLog::open(settings).unwrap();
        let mut creation = record("ACTIVE", None);
        creation.value = String::from_utf8(creation.value.unwrap())
            .ok()
            .map(|value| value.replace("status_changed", "created").into_bytes());
        log.publisher("test").unwrap().publish(&[creation, record("BLOCKED", None)], 1).unwrap();
        let mut quarantine = Quarantine::default();
        let known = Positions::from([(0, 2)]);
        let mut reader = BatchReader::new(log.reader(&Positions::new()).unwrap(), known, &mut quarantine);
        let batch = reader.read(Duration::from_secs(10));
        assert_eq!((batch.records, batch.events), (2, Vec::new()));
        reader.restart(log.reader(&Positions::new()).unwrap());
        let (mut writer, view) = crate::accounts::view::account_view();
        reader.read(Duration::from_secs(10)).events.iter().for_each(|event| writer.gather(event));
        writer.settle();
        assert_eq!(view.count(AccountStatus::Blocked), 1);
    }

    #[test]
    fn a_creation_in_a_re_created_topic_is_applied_whatever_its_offset() {
        let folder = tempfile::tempdir().unwrap();
        let log = |name: &str, records: &[Record]| {
            let settings = EmbeddedSettings { partition_count: 1, ..EmbeddedSettings::at(folder.path().join(name)) };
            let log = EmbeddedLog::open(settings).unwrap();
            log.publisher("test").unwrap().publish(records, 1).unwrap();
            log
        };
        let old = log("old.db", &[record("ACTIVE", Some("1")), record("BLOCKED", Some("2"))]);
        let new = log("new.db", &[record("ACTIVE", Some("1"))]);
        let mut quarantine = Quarantine::default();
        let known = Positions::from([(0, 2)]);
        let mut reader = BatchReader::new(old.reader(&Positions::new()).unwrap(), known, &mut quarantine);
        assert_eq!(reader.read(Duration::from_secs(10)).events.len(), 1);
        // A Kafka reader continues by itself in a re-created topic.
        reader.reader = new.reader(&Positions::new()).unwrap();
        assert_eq!(reader.read(Duration::from_secs(10)).events.len(), 1);
    }

    #[test]
    fn what_goes_by_its_arrival_is_not_applied_again_over_a_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let settings = EmbeddedSettings { partition_count: 1, ..EmbeddedSettings::at(folder.path().join("log.db")) };
        let log = EmbeddedLog::open(settings).unwrap();
        let records =
            [("BLOCKED", None), ("ACTIVE", Some("2")), ("DELETED", None), ("ACTIVE", None)].map(|(s, v)| record(s, v));
        log.publisher("test").unwrap().publish(&records, 1).unwrap();
        let statuses = |known: Positions| {
            let mut quarantine = Quarantine::default();
            let mut reader = BatchReader::new(log.reader(&Positions::new()).unwrap(), known, &mut quarantine);
            let batch = reader.read(Duration::from_secs(10));
            assert_eq!((batch.records, batch.poison, batch.samples.len()), (4, 0, 1));
            batch.events.iter().map(|event| event.status.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(statuses(Positions::new()), ["BLOCKED", "ACTIVE", "DELETED", "ACTIVE"]);
        assert_eq!(statuses(Positions::from([(0, 3)])), ["ACTIVE", "DELETED", "ACTIVE"]);
        assert_eq!(statuses(Positions::from([(0, 4)])), ["ACTIVE", "DELETED"]);
    }
}
