//! The event log: what carries records from the account service to whoever listens.
//!
//! One small interface, [`EventLog`], and two real implementations of it: [`KafkaLog`] through librdkafka, and
//! [`EmbeddedLog`], which needs nothing but a folder. Both keep one topic: partitions of records with keys and
//! offsets, compacted to the last record of a key. One suite (`tests/suite.rs`) runs on both.
//!
//! Everything here blocks: each loop that uses the log has a thread of its own, as librdkafka's consumer wants it.
//! No type here knows what an account is.

mod embedded;
mod kafka;
mod partitioner;
mod record;

use std::collections::BTreeMap;
use std::time::Duration;

pub use embedded::{DEFAULT_COMPACTION_MIN_RECORDS, EmbeddedLog, EmbeddedSettings};
pub use kafka::{KafkaHeaders, KafkaLog, KafkaSettings, kafka_variable};
pub use partitioner::partition_of_key;
pub use record::{HeaderList, Headers, Record, RecordRef};

/// How many partitions the topic gets where it does not exist yet (docs/operations/kafka.md).
pub const DEFAULT_PARTITION_COUNT: u32 = 3;

/// Offsets by partition: for a reader the next offset to read, for the log's end the offset the next record will get.
/// A partition that is not in the map stands at its start.
pub type Positions = BTreeMap<u32, u64>;

/// One topic of records, shared by the threads of a process.
pub trait EventLog: Send + Sync + 'static {
    /// What and where the log is, for a person: `embedded log in ./data`, `Kafka at localhost:9092, topic account-events`.
    fn describe(&self) -> String;

    /// Makes the topic if it is missing, and warns once of settings that will do harm. Whoever reads or publishes calls it
    /// before they open anything, and again after a failure.
    fn prepare(&self) -> Result<(), LogError> {
        Ok(())
    }

    /// Opens the one publisher called `name`, and fences every earlier one of that name: from when this returns, nothing
    /// that an earlier publisher of that name still tries can reach the log.
    fn publisher(&self, name: &str) -> Result<Box<dyn Publisher>, LogError>;

    /// Reads every partition, from `from` on, as a member of no group. A position that the log does not have (before its
    /// start where retention cut it, or beyond its end after the topic was made anew) is moved to the partition's start.
    fn reader(&self, from: &Positions) -> Result<Box<dyn Reader>, LogError>;

    /// Reads as one member of `group`: each partition is read by one member at a time, from where the group's last
    /// commit stands, from the start where there is none.
    fn group_reader(&self, group: &str) -> Result<Box<dyn GroupReader>, LogError>;

    /// Where each partition begins now; those that are not in the map begin at 0. One that begins later has lost records:
    /// somebody deleted them, or the topic's retention did.
    fn start_offsets(&self, _timeout: Duration) -> Result<Positions, LogError> {
        Ok(Positions::new())
    }

    /// What is wrong with the log's settings, each as a line for a person.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Where each partition ends now. It counts every record that a [`Reader`] may be handed.
    fn end_offsets(&self, timeout: Duration) -> Result<Positions, LogError>;
}

/// Publishes batches in order. Its `u64` position is the caller's own count of what it has published (the outbox's
/// sequence), and it moves in the same atomic step as the records it covers: after a crash, [`position`] tells exactly
/// what has reached the log, so nothing is published twice in another order (ARCHITECTURE.md A3).
///
/// [`position`]: Publisher::position
pub trait Publisher: Send {
    /// The position of the last batch that reached the log, by this publisher or an earlier one of its name; `None`
    /// if there was none.
    fn position(&self) -> Option<u64>;

    /// Whether the log, through a fault of its own, may yet lose records before the position it was opened with. Telling it the
    /// newest state of everything once more makes up for that. It says so until something is published: so note before that, where
    /// it lasts, that it is to be told.
    fn may_lose_records(&self) -> bool {
        false
    }

    /// Publishes `records` in their order, and `position` with them. When it returns `Ok` they are durable (`acks=all`;
    /// a synced commit). After an error some may be there, and this publisher takes no more: open a new one, and its
    /// position tells.
    fn publish(&mut self, records: &[Record], position: u64) -> Result<(), LogError> {
        self.append(records, position)?;
        self.commit()
    }

    /// As [`publish`](Publisher::publish), where many batches follow each other: readers see the records as soon, but when
    /// they and the position are certain may be put off a little, so that several batches share the cost of that. Until then
    /// [`position`](Publisher::position) stays where it was.
    fn append(&mut self, records: &[Record], position: u64) -> Result<(), LogError>;

    /// How long [`commit`](Publisher::commit) may be put off, if something that was appended is not certain yet.
    fn commit_due(&self) -> Option<Duration> {
        None
    }

    /// Makes all that was appended certain: durable, and never taken back.
    fn commit(&mut self) -> Result<(), LogError> {
        Ok(())
    }

    /// How long it pays to let more records gather after a batch of `count`: so many come of load, and one by one they would
    /// cost more.
    fn gathering_time(&self, _count: usize) -> Duration {
        Duration::ZERO
    }

    /// To be called while there is nothing to publish: fails, as [`publish`](Publisher::publish) does, if the log is found
    /// to have lost what was published. It looks now and then, and only where a log can lose something.
    fn check(&mut self) -> Result<(), LogError> {
        Ok(())
    }
}

/// Reads every partition.
pub trait Reader: Send {
    /// Waits up to `timeout` for records and hands what has come to `apply`, each partition's in offset order. Returns how
    /// many it handed over: 0 when none came in time. It hands over at most a bounded number a call.
    fn poll(&mut self, timeout: Duration, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError>;

    /// The next offset to read of each partition. What holds no record for a reader (a compacted offset, a transaction's
    /// marker) counts as read once the reader stands behind it, so a reader that has read all there is stands at
    /// [`EventLog::end_offsets`].
    fn positions(&self) -> Positions;

    /// [`positions`](Reader::positions), but nowhere ahead of what the log has durably. What outlives the process (a
    /// checkpoint) takes these: the embedded log hands records over before they are synced, and after a crash other
    /// records may get their offsets. Reading again what a checkpoint has already seen does no harm.
    fn durable_positions(&self) -> Positions;

    /// Why partitions cannot be read, where that has lasted for seconds; `None` while all is well. Other partitions are read on.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// What could not be decoded and was passed over since the last call.
    fn passed_over(&mut self) -> Vec<PassedOver> {
        Vec::new()
    }
}

/// Records that the log has and nobody can read: a batch that is damaged, for example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// Their partition.
    pub partition: u32,
    /// The first of their offsets.
    pub offset: u64,
    /// Why they cannot be read, for a person.
    pub reason: String,
}

/// Reads the partitions that its group gives it.
pub trait GroupReader: Send {
    /// As [`Reader::poll`], over the partitions this member holds now.
    fn poll(&mut self, timeout: Duration, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError>;

    /// Commits the group's positions behind everything polled so far. Call it when what was polled has taken effect;
    /// what was polled and not committed is handed out again, to this member or another.
    fn commit(&mut self) -> Result<(), LogError>;
}

/// Why the log did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It cannot be reached, or did not answer in time. Trying again may help.
    #[error("the event log is unavailable: {0}")]
    Unavailable(String),
    /// Another publisher of the same name was opened since. This one is of no more use.
    #[error("another publisher took over: {0}")]
    Fenced(String),
    /// It refuses what was asked, and will again: a setting, a permission, a file that another process holds.
    #[error("{0}")]
    Refused(String),
    /// What is stored cannot be read back.
    #[error("the event log is damaged: {0}")]
    Damaged(String),
}
