//! The event log as compaction will leave it: the last record of each key.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use account_events::digest::{Digest, EventState, LogLine, StateLine};
use account_events::{AccountId, AccountStatus};
use event_log::{EventLog as _, KafkaLog, LogError, Positions, Reader};
use serde::Deserialize;

use crate::client::{Failure, Service, patiently};

/// The maps of a partition. They grow one by one, so that only a part is in memory twice.
const SHARDS: usize = 64;

/// How long Kafka may take to return its end offsets.
const OFFSETS_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one poll waits for records.
const POLL: Duration = Duration::from_millis(100);

/// Where the log is read.
pub(super) enum Source {
    /// Kafka itself.
    Kafka { log: Box<KafkaLog>, reader: Option<Box<dyn Reader>>, patience: Duration },
    /// The log of a card service, which may be the embedded one.
    Service(Service),
}

/// The last line of `GET /admin/log`.
#[derive(Deserialize)]
struct LogEnd {
    positions: Positions,
    ends: Positions,
}

impl Source {
    pub(super) fn describe(&self) -> String {
        match self {
            Source::Kafka { log, .. } => log.describe(),
            Source::Service(service) => format!("the event log of {}", service.url),
        }
    }

    /// Makes the next call of [`read`](Source::read) begin at the start of the log.
    pub(super) fn restart(&mut self) {
        if let Source::Kafka { reader, .. } = self {
            *reader = None;
        }
    }

    /// Reads the records from the last call on, up to where the log ends now, and returns its end offsets. Calls `progress` with the
    /// records that are read and left.
    pub(super) fn read(&mut self, states: &mut LogStates, progress: &dyn Fn(u64, u64)) -> anyhow::Result<Positions> {
        match self {
            Source::Kafka { log, reader, patience } => patiently(*patience, || {
                let outcome = read_kafka(log, reader, states, *patience, progress);
                outcome.map_err(|error| {
                    *reader = None;
                    Failure::Transient(error.to_string())
                })
            }),
            Source::Service(service) => loop {
                let path = format!("/admin/log?from={}", as_text(&states.positions));
                let LogEnd { positions, ends } = service.patiently(|| {
                    let undecodable = states.undecodable;
                    let end = service.lines(&path, None::<&()>, |line| states.apply(line));
                    end.inspect_err(|_| states.undecodable = undecodable)
                })?;
                let is_read = remaining(&positions, &ends) == 0;
                progress(positions.values().sum(), remaining(&positions, &ends));
                states.positions = positions;
                if is_read {
                    return Ok(ends);
                }
            },
        }
    }
}

fn read_kafka(
    log: &KafkaLog,
    open: &mut Option<Box<dyn Reader>>,
    states: &mut LogStates,
    patience: Duration,
    progress: &dyn Fn(u64, u64),
) -> Result<Positions, LogError> {
    let ends = log.end_offsets(OFFSETS_TIMEOUT)?;
    let reader = match open {
        Some(reader) => reader,
        None => open.insert(log.reader(&states.positions)?),
    };
    let mut progressed = Instant::now();
    while remaining(&reader.positions(), &ends) > 0 {
        reader.poll(POLL, &mut |record| states.apply(LogLine::of(record)))?;
        states.undecodable += reader.passed_over().len() as u64;
        let positions = reader.positions();
        if positions != states.positions {
            progressed = Instant::now();
            progress(positions.values().sum(), remaining(&positions, &ends));
            states.positions = positions;
        } else if progressed.elapsed() > patience {
            let trouble = reader.trouble().unwrap_or_else(|| "it brings no records".to_owned());
            return Err(LogError::Unavailable(trouble));
        }
    }
    Ok(ends)
}

/// The number of offsets between `positions` and `ends`.
pub(super) fn remaining(positions: &Positions, ends: &Positions) -> u64 {
    ends.iter().map(|(partition, end)| end.saturating_sub(positions.get(partition).copied().unwrap_or(0))).sum()
}

fn as_text(positions: &Positions) -> String {
    let pairs: Vec<_> = positions.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect();
    pairs.join(",")
}

/// The last record of each key in a partition: 21 bytes, and the free places of a hash table.
type Partition = [HashMap<AccountId, Packed>; SHARDS];

/// A state in four bytes: the version, and in the two low bits 1 and more for the status. [`UNREADABLE`] if the last record of the key
/// reports no state of its account.
type Packed = u32;

const UNREADABLE: Packed = 0;

/// The accounts of the log.
#[derive(Default)]
pub(super) struct LogStates {
    /// The next offset of each partition.
    positions: Positions,
    partitions: BTreeMap<u32, Box<Partition>>,
    /// What records report whose key is not their account. Nothing replaces them in compaction but records of their own key.
    others: HashMap<AccountId, EventState>,
    /// Records that could not be decoded.
    pub(super) undecodable: u64,
}

impl LogStates {
    /// Applies the next record.
    pub(super) fn apply(&mut self, LogLine(partition, key, line): LogLine) {
        let own = line.filter(|line| Some(line.0) == key);
        if let Some(key) = key {
            let maps =
                self.partitions.entry(partition).or_insert_with(|| Box::new(std::array::from_fn(|_| HashMap::new())));
            maps[shard(key)].insert(key, own.map_or(UNREADABLE, |line| pack(line.state())));
        }
        match line {
            Some(line) if own.is_none() => {
                let state = line.state();
                self.others.entry(line.0).and_modify(|known| *known = known.merged(state)).or_insert(state);
            }
            Some(_) => {}
            None => self.undecodable += 1,
        }
    }

    /// The state that a view has which reads the compacted log.
    pub(super) fn get(&self, id: AccountId) -> Option<EventState> {
        // An account has records in several partitions if partitions were added.
        let keyed = self.partitions.values().filter_map(|maps| unpack(*maps[shard(id)].get(&id)?));
        keyed.max().into_iter().chain(self.others.get(&id).copied()).reduce(EventState::merged)
    }

    /// All accounts.
    pub(super) fn accounts(&self) -> impl Iterator<Item = StateLine> {
        let keyed = self.partitions.iter().flat_map(move |(number, maps)| {
            let is_first = move |id: &AccountId| {
                !self.partitions.range(..number).any(|(_, earlier)| earlier[shard(*id)].contains_key(id))
            };
            maps.iter().flat_map(HashMap::keys).copied().filter(is_first)
        });
        let is_keyed = |id: &AccountId| self.partitions.values().any(|maps| maps[shard(*id)].contains_key(id));
        let others = self.others.keys().copied().filter(move |id| !is_keyed(id));
        keyed.chain(others).filter_map(|id| Some(StateLine::new(id, self.get(id)?)))
    }

    /// The digest of all accounts.
    pub(super) fn digest(&self, buckets: u32) -> Digest {
        let mut digest = Digest::new(buckets);
        self.accounts().for_each(|line| digest.add(line));
        digest
    }
}

fn shard(id: AccountId) -> usize {
    // The first bytes are the time.
    usize::from(id.0.as_bytes()[15]) % SHARDS
}

fn pack(state: EventState) -> Packed {
    state.version << 2 | (state.status as u32 + 1)
}

fn unpack(packed: Packed) -> Option<EventState> {
    let status = AccountStatus::ALL.get((packed & 3).checked_sub(1)? as usize)?;
    Some(EventState { version: packed >> 2, status: *status })
}

#[cfg(test)]
mod tests {
    use account_events::MAX_VERSION;

    use super::*;

    const ACTIVE: AccountStatus = AccountStatus::Active;
    const BLOCKED: AccountStatus = AccountStatus::Blocked;

    fn id(number: u8) -> AccountId {
        format!("00000000-0000-0000-0000-0000000000{number:02x}").parse().unwrap()
    }

    fn line(number: u8, version: u32, status: AccountStatus) -> Option<StateLine> {
        Some(StateLine(id(number), version, status))
    }

    fn states(lines: &[LogLine]) -> LogStates {
        let mut states = LogStates::default();
        lines.iter().for_each(|line| states.apply(*line));
        states
    }

    #[test]
    fn a_state_is_packed_and_unpacked() {
        for version in [0, 1, 7, MAX_VERSION] {
            for status in AccountStatus::ALL {
                let state = EventState { version, status };
                assert_eq!(unpack(pack(state)), Some(state));
            }
        }
        assert_eq!(unpack(UNREADABLE), None);
    }

    #[test]
    fn the_last_record_of_a_key_counts_and_not_the_highest() {
        let log = states(&[LogLine(0, Some(id(1)), line(1, 3, ACTIVE)), LogLine(0, Some(id(1)), line(1, 2, BLOCKED))]);
        assert_eq!(log.get(id(1)), Some(EventState { version: 2, status: BLOCKED }));
    }

    #[test]
    fn a_last_record_that_is_unreadable_or_of_another_account_hides_its_key() {
        let first = LogLine(0, Some(id(1)), line(1, 1, ACTIVE));
        let log = states(&[first, LogLine(0, Some(id(1)), None)]);
        assert_eq!((log.get(id(1)), log.undecodable, log.accounts().count()), (None, 1, 0));
        let log = states(&[first, LogLine(0, Some(id(1)), line(2, 5, BLOCKED))]);
        assert_eq!((log.get(id(1)), log.undecodable), (None, 0));
        assert_eq!(log.accounts().collect::<Vec<_>>(), [line(2, 5, BLOCKED).unwrap()]);
    }

    #[test]
    fn an_account_in_two_partitions_or_with_keyless_records_is_listed_once() {
        let log = states(&[
            LogLine(0, Some(id(1)), line(1, 2, BLOCKED)),
            LogLine(1, Some(id(1)), line(1, 3, ACTIVE)),
            LogLine(2, None, line(1, 1, ACTIVE)),
            LogLine(2, None, line(2, 0, ACTIVE)),
            LogLine(2, None, line(2, 0, BLOCKED)),
        ]);
        let mut listed: Vec<_> = log.accounts().collect();
        listed.sort_by_key(|line| line.0);
        assert_eq!(listed, [line(1, 3, ACTIVE).unwrap(), line(2, 0, BLOCKED).unwrap()]);
        assert_eq!(log.digest(16).accounts(), 2);
    }
}
