//! The event log: it carries records from the account service to the card services and other consumers.
//!
//! [`EventLog`] has two implementations: [`KafkaLog`] through librdkafka, and [`EmbeddedLog`] in a file. Both keep one topic:
//! partitions of records with keys and offsets, compacted to the last record of each key. One suite (`tests/suite.rs`) tests both.
//!
//! Every call blocks: each loop that uses the log has a thread of its own. This crate does not know what the records mean.

mod embedded;
mod kafka;
mod partitioner;
mod record;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub use embedded::{EmbeddedLog, EmbeddedSettings};
pub use kafka::{KafkaHeaders, KafkaLog, KafkaSettings, kafka_variable};
pub use partitioner::partition_of_key;
pub use record::{HeaderList, Headers, Record, RecordRef};

/// The number of partitions of a new topic (docs/operations/kafka.md).
pub const DEFAULT_PARTITION_COUNT: u32 = 3;

/// The longest note of a publisher. Kafka stores it in the metadata of an offset, which has 4,096 bytes by default.
pub const MAX_NOTE_BYTES: usize = 2_000;

/// Offsets by partition: for a reader the next offset to read, for the log's end the offset of the next record. An absent partition
/// is at its start.
pub type Positions = BTreeMap<u32, u64>;

/// One topic of records, shared by the threads of a process.
pub trait EventLog: Send + Sync + 'static {
    /// A description for operators: `embedded log in ./data`, `Kafka at localhost:9092, topic account-events`.
    fn describe(&self) -> String;

    /// Creates the topic if it is missing, and logs a warning for each harmful setting. Callers call it before they open a publisher
    /// or reader, and again after a failure.
    fn prepare(&self) -> Result<(), LogError> {
        Ok(())
    }

    /// Opens the publisher called `name` and fences all earlier ones of that name: once this returns, nothing that they still try
    /// to publish reaches the log.
    fn publisher(&self, name: &str) -> Result<Box<dyn Publisher>, LogError>;

    /// What the last publisher called `name` committed; `None` if none has, or if the topic was lost since. Fences nobody. The last
    /// commit may show after its call has returned: only an open publisher knows exactly.
    fn committed(&self, name: &str, timeout: Duration) -> Result<Option<Committed>, LogError>;

    /// Reads every partition from `from` on, outside of any group. A position that the log does not have (removed by retention, or
    /// beyond the end of a topic that was recreated) becomes the start of its partition.
    fn reader(&self, from: &Positions) -> Result<Box<dyn Reader>, LogError>;

    /// Reads as a member of `group`. One member at a time reads a partition, from the group's committed position, or from the start
    /// if there is none.
    fn group_reader(&self, group: &str) -> Result<Box<dyn GroupReader>, LogError>;

    /// The start of each partition; an absent partition starts at 0. A partition that starts later has lost records to retention or
    /// to an operator.
    fn start_offsets(&self, _timeout: Duration) -> Result<Positions, LogError> {
        Ok(Positions::new())
    }

    /// The harmful settings of the log, each as one line for operators.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// The end of each partition, which includes every record that a [`Reader`] may have read.
    fn end_offsets(&self, timeout: Duration) -> Result<Positions, LogError>;
}

/// What publishers of one name have committed, in the same atomic step as their records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The caller's sequence number of the last record.
    pub position: u64,
    /// What the publisher wrote about itself; empty if nothing.
    pub note: String,
}

/// Publishes batches in order. Its position is the caller's own sequence number (the outbox's). The log stores the position
/// atomically with the records that it covers: after a crash, [`position`](Publisher::position) says exactly what has reached the log,
/// so nothing is published again in another order (ARCHITECTURE.md A3).
pub trait Publisher: Send {
    /// The position of the last batch that this publisher or an earlier one of its name committed; `None` if there is none.
    fn position(&self) -> Option<u64>;

    /// The note that was committed with the position at which this publisher was opened; empty if there is none.
    fn note(&self) -> &str;

    /// Sets the note that later commits store with the position: one line of at most [`MAX_NOTE_BYTES`].
    fn set_note(&mut self, note: String);

    /// Whether a fault of the log may have lost records below the position at which this publisher was opened. Publishing the current
    /// state of every account again makes up for the loss. Returns true until the next commit: persist the resync request before
    /// publishing.
    fn may_lose_records(&self) -> bool {
        false
    }

    /// Publishes `records` in order, together with `position`. They are durable when this returns `Ok`. After an error the records
    /// may or may not be in the log and this publisher is unusable: open a new one and read its position.
    fn publish(&mut self, records: &[Record], position: u64) -> Result<(), LogError> {
        self.append(records, position)?;
        self.commit()
    }

    /// Publishes as [`publish`](Publisher::publish) does, but may defer the commit so that several batches share it. Readers see the
    /// records at once; [`position`](Publisher::position) changes with the commit.
    fn append(&mut self, records: &[Record], position: u64) -> Result<(), LogError>;

    /// How long [`commit`](Publisher::commit) may still be deferred; `None` if nothing is uncommitted.
    fn commit_due(&self) -> Option<Duration> {
        None
    }

    /// Commits what was appended: it is durable when this returns `Ok`.
    fn commit(&mut self) -> Result<(), LogError> {
        Ok(())
    }

    /// How long to gather records after a batch of `count`, so that the next batch is larger. Zero unless the load is high.
    fn gathering_time(&self, _count: usize) -> Duration {
        Duration::ZERO
    }

    /// Checks from time to time whether the log still has what was published, and fails as [`publish`](Publisher::publish) does if
    /// not. Call it when nothing is uncommitted, also under load.
    fn check(&mut self) -> Result<(), LogError> {
        Ok(())
    }
}

/// Reads every partition.
pub trait Reader: Send {
    /// Waits up to `timeout` for records and passes them to `apply`, each partition's in offset order. Returns their number, which
    /// is bounded for each call; 0 if none came in time.
    fn poll(&mut self, timeout: Duration, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError>;

    /// The next offset to read of each partition. Offsets without a record (compacted ones, transaction markers) count as read once
    /// the reader has passed them, so a reader that has read everything is at [`EventLog::end_offsets`].
    fn positions(&self) -> Positions;

    /// [`positions`](Reader::positions), limited to what is durable in the log. A checkpoint takes these: the embedded log passes on
    /// records before they are synced, and after a crash other records may get their offsets.
    fn durable_positions(&self) -> Positions;

    /// Why partitions cannot be read, if that has lasted for seconds. The other partitions are still read.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// The batches that could not be decoded and were skipped since the last call.
    fn passed_over(&mut self) -> Vec<PassedOver> {
        Vec::new()
    }
}

/// A batch of records that was skipped because it cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// The partition of the batch.
    pub partition: u32,
    /// The first offset of the batch.
    pub offset: u64,
    /// Why it cannot be decoded.
    pub reason: String,
}

/// Reads the partitions that its group assigns to it.
pub trait GroupReader: Send {
    /// As [`Reader::poll`], for the partitions that are assigned to this member.
    fn poll(&mut self, timeout: Duration, apply: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize, LogError>;

    /// Commits the group's positions after everything that was polled. Call it when the records have taken effect: the group reads
    /// records that are not committed again.
    fn commit(&mut self) -> Result<(), LogError>;
}

/// Why an operation on the log failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The log cannot be reached or did not answer in time. A retry may succeed.
    #[error("the event log is unavailable: {0}")]
    Unavailable(String),
    /// Another publisher of the same name was opened, so this one is unusable.
    #[error("another publisher took over: {0}")]
    Fenced(String),
    /// The log refuses the operation, and will refuse it again: a setting, a permission, a file that another process has locked.
    #[error("{0}")]
    Refused(String),
    /// What is stored cannot be read.
    #[error("the event log is damaged: {0}")]
    Damaged(String),
}

/// The error of a publisher that is used after a failure.
fn spent_publisher() -> LogError {
    LogError::Unavailable("an earlier publish failed: open a new publisher".to_owned())
}

/// Both logs store positions as signed integers.
fn position_out_of_range(position: u64) -> LogError {
    LogError::Refused(format!("the position {position} does not fit into 63 bits"))
}

/// The time `timeout` from now. librdkafka counts milliseconds in 32 bits, so no wait is longer than an hour.
fn deadline(timeout: Duration) -> Instant {
    const LONGEST_WAIT: Duration = Duration::from_secs(3600);
    Instant::now() + timeout.min(LONGEST_WAIT)
}
