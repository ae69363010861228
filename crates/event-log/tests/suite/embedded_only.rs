//! What only the embedded log has to show: its file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use event_log::{EmbeddedLog, EmbeddedSettings, EventLog, LogError, Positions, Record};
use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use super::places::PATIENCE;

pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub(crate) fn file(&self, suffix: &str) -> PathBuf {
        self.0.path().join(format!("events.db{suffix}"))
    }

    pub(crate) fn open(&self) -> EmbeddedLog {
        self.try_open().unwrap()
    }

    pub(crate) fn try_open(&self) -> Result<EmbeddedLog, LogError> {
        EmbeddedLog::open(EmbeddedSettings::at(self.file("")))
    }
}

pub(crate) fn record(key: &str, value: impl Into<Vec<u8>>) -> Record {
    Record { key: Some(key.into()), value: Some(value.into()), ..Record::default() }
}

/// What stands where.
pub(crate) type Contents = BTreeMap<(u32, u64), Record>;

/// Everything a reader from the start is handed until it stands at the end, and that it came in order.
pub(crate) fn try_read_all(log: &EmbeddedLog) -> Result<Contents, LogError> {
    let end = log.end_offsets(PATIENCE)?;
    let mut reader = log.reader(&Positions::new())?;
    let mut contents = Contents::new();
    let mut last: BTreeMap<u32, u64> = BTreeMap::new();
    let deadline = Instant::now() + PATIENCE;
    while reader.positions().iter().any(|(partition, position)| *position < end[partition]) {
        assert!(Instant::now() < deadline, "stuck at {:?} before {end:?}", reader.positions());
        reader.poll(Duration::from_millis(1), &mut |record| {
            assert!(last.insert(record.partition, record.offset).is_none_or(|last| last < record.offset));
            contents.insert((record.partition, record.offset), record.to_record());
        })?;
    }
    Ok(contents)
}

pub(crate) fn read_all(log: &EmbeddedLog) -> Contents {
    try_read_all(log).unwrap()
}

/// What compaction is to leave: records without a key, and the last one of each key.
pub(crate) fn compacted(contents: &Contents) -> Contents {
    let mut last = BTreeMap::new();
    for ((partition, offset), record) in contents {
        if let Some(key) = &record.key {
            last.insert((*partition, key.clone()), *offset);
        }
    }
    let stays = |partition, offset, record: &Record| match &record.key {
        Some(key) => last.get(&(partition, key.clone())) == Some(&offset),
        None => true,
    };
    contents.iter().filter(|((p, o), record)| stays(*p, *o, record)).map(|(at, record)| (*at, record.clone())).collect()
}

#[test]
fn what_was_published_is_there_after_reopening() {
    let folder = Folder::new();
    let mut expected = Contents::new();
    for round in 1..=4u64 {
        let log = folder.open();
        assert_eq!(read_all(&log), expected);
        let mut publisher = log.publisher("relay").unwrap();
        assert_eq!(publisher.position(), (round > 1).then(|| round - 1));
        let records: Vec<_> = (0..30).map(|n| record(&format!("k{n}"), format!("{round}"))).collect();
        publisher.publish(&records, round).unwrap();
        expected = read_all(&log);
        assert_eq!(expected.len() as u64, round * 30);
    }
}

#[test]
fn an_existing_log_keeps_its_partitions() {
    let folder = Folder::new();
    let with = |partition_count| EmbeddedSettings { partition_count, ..EmbeddedSettings::at(folder.file("")) };
    assert_eq!(EmbeddedLog::open(with(5)).unwrap().end_offsets(PATIENCE).unwrap().len(), 5);
    assert_eq!(EmbeddedLog::open(with(2)).unwrap().end_offsets(PATIENCE).unwrap().len(), 5);
    assert!(matches!(EmbeddedLog::open(with(0)), Err(LogError::Refused(_))));
}

#[test]
fn a_second_process_is_refused() {
    let folder = Folder::new();
    let log = folder.open();
    let Err(LogError::Refused(text)) = folder.try_open() else { panic!("opened twice") };
    assert!(text.contains("events.db") && text.contains("another process"), "{text}");
    // A publisher alone keeps the file.
    let publisher = log.publisher("relay").unwrap();
    drop(log);
    assert!(matches!(folder.try_open(), Err(LogError::Refused(_))));
    drop(publisher);
    folder.open();
}

#[test]
fn files_of_others_are_refused_by_name() {
    let newer = Folder::new();
    drop(newer.open());
    Connection::open(newer.file("")).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let foreign = Folder::new();
    Connection::open(foreign.file("")).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    for (folder, why) in [(newer, "newer version"), (foreign, "no event log")] {
        let Err(LogError::Refused(text)) = folder.try_open() else { panic!("{why}: opened") };
        assert!(text.contains("events.db") && text.contains(why) && !text.contains('\n'), "{text}");
    }
    let garbage = Folder::new();
    fs::write(garbage.file(""), vec![0xa5; 10_000]).unwrap();
    let Err(LogError::Damaged(text)) = garbage.try_open() else { panic!("garbage was opened") };
    assert!(text.contains("events.db"), "{text}");
}

/// Runs `work` while another connection holds the file's write lock, so that every commit fails.
fn with_failing_commits(folder: &Folder, work: impl FnOnce()) {
    let blocker = Connection::open(folder.file("")).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    work();
    blocker.execute_batch("ROLLBACK").unwrap();
}

#[test]
fn a_failed_commit_keeps_the_offsets_and_the_position_sound() {
    let folder = Folder::new();
    let log = folder.open();
    let mut publisher = log.publisher("relay").unwrap();
    publisher.publish(&[record("k", "1")], 1).unwrap();
    let mut reader = log.reader(&Positions::new()).unwrap();
    let mut group = log.group_reader("closer").unwrap();
    let mut seen = Contents::new();
    let mut durable = 0;
    with_failing_commits(&folder, || {
        let failed = publisher.publish(&[record("k", "2")], 2);
        assert!(matches!(failed, Err(LogError::Unavailable(_))), "{failed:?}");
        // A publisher that comes now would not know its position, so there is none.
        assert!(matches!(log.publisher("relay"), Err(LogError::Unavailable(_))));
        assert!(matches!(
            publisher.publish(&[record("k", "2")], 2),
            Err(LogError::Unavailable(_) | LogError::Fenced(_))
        ));
        while seen.len() < 2 {
            reader
                .poll(PATIENCE, &mut |record| {
                    seen.insert((record.partition, record.offset), record.to_record());
                })
                .unwrap();
        }
        // Nothing that outlives the process is ahead of the sync.
        durable = group.poll(Duration::ZERO, &mut |_| {}).unwrap();
        durable += group.poll(Duration::ZERO, &mut |_| {}).unwrap();
        assert_ne!(reader.positions(), reader.durable_positions());
    });
    assert_eq!(durable, 1);
    drop(publisher);
    let mut publisher = log.publisher("relay").unwrap();
    assert_eq!(publisher.position(), Some(2), "the failed batch came to the file with its position");
    assert_eq!(reader.positions(), reader.durable_positions());
    publisher.publish(&[record("k", "3")], 3).unwrap();
    let all = read_all(&log);
    let values: Vec<_> = all.values().map(|record| record.value.clone().unwrap()).collect();
    assert_eq!(values, [b"1", b"2", b"3"]);
    assert!(seen.iter().all(|(at, record)| all.get(at) == Some(record)));
    drop((publisher, reader, group, log));
    assert_eq!(read_all(&folder.open()), all);
}

#[test]
fn another_publishers_commit_takes_a_failed_batch_along() {
    let folder = Folder::new();
    let log = folder.open();
    let (mut one, mut two) = (log.publisher("one").unwrap(), log.publisher("two").unwrap());
    with_failing_commits(&folder, || assert!(one.publish(&[record("k", "1")], 1).is_err()));
    two.publish(&[record("k", "2")], 5).unwrap();
    drop((one, two, log));
    let log = folder.open();
    assert_eq!(read_all(&log).len(), 2);
    assert_eq!(log.publisher("one").unwrap().position(), Some(1));
    assert_eq!(log.publisher("two").unwrap().position(), Some(5));
}

#[test]
fn records_too_large_are_refused_and_the_publisher_goes_on() {
    let folder = Folder::new();
    let log = folder.open();
    let mut publisher = log.publisher("relay").unwrap();
    let refused = publisher.publish(&[record("k", "1"), record("k", vec![0; 2_000_000])], 1);
    assert!(matches!(refused, Err(LogError::Refused(_))), "{refused:?}");
    assert!(read_all(&log).is_empty());
    publisher.publish(&[record("k", "1")], 1).unwrap();
}

#[test]
fn a_reader_far_behind_is_served_from_the_file_and_then_from_memory() {
    let folder = Folder::new();
    let log = folder.open();
    let mut slow = log.reader(&Positions::new()).unwrap();
    let mut publisher = log.publisher("relay").unwrap();
    // More than the tail of a partition holds, with every partition filled.
    let total = 60_000;
    for batch in 0..total / 5_000 {
        let records: Vec<_> =
            (0..5_000).map(|n| record(&format!("k{}", n % 50), format!("{}", batch * 5_000 + n))).collect();
        publisher.publish(&records, batch + 1).unwrap();
    }
    let mut seen = vec![0u8; total as usize];
    let deadline = Instant::now() + PATIENCE;
    while slow.positions() != log.end_offsets(PATIENCE).unwrap() {
        assert!(Instant::now() < deadline);
        slow.poll(Duration::ZERO, &mut |record| {
            let number: usize = std::str::from_utf8(record.value.unwrap()).unwrap().parse().unwrap();
            seen[number] += 1;
        })
        .unwrap();
    }
    // A compaction in the background may have removed older ones; nothing comes twice, and the last ones are there.
    assert!(seen.iter().all(|times| *times <= 1));
    assert!(seen[total as usize - 50..].iter().all(|times| *times == 1));
}

#[test]
fn compaction_in_the_background_gives_the_disk_space_back() {
    let folder = Folder::new();
    let settings = EmbeddedSettings { compaction_min_records: 2_000, ..EmbeddedSettings::at(folder.file("")) };
    let log = EmbeddedLog::open(settings).unwrap();
    let mut publisher = log.publisher("relay").unwrap();
    let value = "x".repeat(400);
    for position in 1..=40 {
        let records: Vec<_> =
            (0..1_000).map(|n| record(&format!("k{}", n % 20), format!("{position} {n} {value}"))).collect();
        publisher.publish(&records, position).unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    // 16 MB were published. At most the part that is not worth compacting yet stays.
    let on_disk = || fs::metadata(folder.file("")).unwrap().len() + fs::metadata(folder.file("-wal")).unwrap().len();
    while on_disk() > 8_000_000 {
        assert!(Instant::now() < deadline, "{} bytes", on_disk());
        std::thread::yield_now();
    }
    let end = log.end_offsets(PATIENCE).unwrap();
    assert_eq!(end.values().sum::<u64>(), 40_000, "offsets are not given anew");
    log.compact_now().unwrap();
    assert!(on_disk() < 2_000_000, "{} bytes", on_disk());
    // Reopened, as this process may still be handed the last records from memory.
    drop((publisher, log));
    let log = folder.open();
    let left = read_all(&log);
    assert_eq!(left.len(), 20);
    assert!(left.values().all(|record| record.value.as_ref().unwrap().starts_with(b"40 9")));
    assert_eq!(log.end_offsets(PATIENCE).unwrap(), end);
}

#[test]
fn compaction_makes_one_chunk_of_many_small_ones() {
    let folder = Folder::new();
    let log = folder.open();
    let mut publisher = log.publisher("relay").unwrap();
    for position in 1..=600 {
        let first = Record { is_first_of_key: true, ..record(&format!("k{position}"), "v") };
        publisher.publish(&[first], position).unwrap();
    }
    let before = read_all(&log);
    log.compact_now().unwrap();
    drop((publisher, log));
    let chunks = |partition| {
        let connection = Connection::open(folder.file("")).unwrap();
        let sql = format!("SELECT count(*) FROM chunks_{partition}");
        connection.query_row(&sql, [], |row| row.get::<_, u32>(0)).unwrap()
    };
    assert!((0..3).map(chunks).sum::<u32>() < 30);
    assert_eq!(read_all(&folder.open()), before);
}

#[test]
fn compaction_of_full_chunks_removes_what_is_replaced_and_counts_the_rest() {
    let folder = Folder::new();
    let log = folder.open();
    let mut publisher = log.publisher("relay").unwrap();
    let value = "x".repeat(400);
    for position in 1..=3 {
        // One in a hundred has a key from before.
        let key = |n: u32| if n.is_multiple_of(100) { format!("k{n}") } else { format!("k{n} {position}") };
        let records: Vec<_> = (0..4_000).map(|n| record(&key(n), format!("{position} {n} {value}"))).collect();
        publisher.publish(&records, position).unwrap();
    }
    let everything = read_all(&log);
    assert_eq!(everything.len(), 12_000);
    log.compact_now().unwrap();
    drop((publisher, log));
    let connection = Connection::open(folder.file("")).unwrap();
    let counted = connection.query_row("SELECT sum(clean_records) FROM partitions", [], |row| row.get::<_, i64>(0));
    drop(connection);
    let left = read_all(&folder.open());
    assert_eq!(left, compacted(&everything));
    assert_eq!((counted.unwrap(), left.len()), (11_920, 11_920));
}

#[test]
fn compaction_does_not_read_what_is_the_first_of_its_key_until_something_may_replace_it() {
    let folder = Folder::new();
    let log = folder.open();
    let mut publisher = log.publisher("relay").unwrap();
    let first = |n: u32| Record { is_first_of_key: true, ..record(&format!("k{n}"), "first") };
    publisher.publish(&(0..1_000).map(first).collect::<Vec<_>>(), 1).unwrap();
    let connection = Connection::open(folder.file("")).unwrap();
    let garble = "UPDATE chunks_0 SET records = zeroblob(length(records))";
    assert!(connection.execute(garble, []).unwrap() > 0);
    log.compact_now().expect("it would have met garbled records");
    let counted = |connection: &Connection| {
        let sql = "SELECT sum(clean_records), sum(clean_end) FROM partitions";
        connection.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).unwrap()
    };
    assert_eq!(counted(&connection), (1_000, 1_000), "they are clean");
    publisher.publish(&(0..1_000).map(|n| record(&format!("k{n}"), "second")).collect::<Vec<_>>(), 2).unwrap();
    for attempt in 1..=2 {
        let outcome = log.compact_now();
        assert!(matches!(outcome, Err(LogError::Damaged(_))), "attempt {attempt}: {outcome:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Keys 0 to 9 are keys, the rest stand for none; beside them there may be a hundred others, all new or all known; after each
    /// batch, maybe a compaction, maybe a reopening.
    #[test]
    fn compaction_leaves_the_last_record_of_each_key(
        batches in prop::collection::vec((
            prop::collection::vec(0u8..12, 0..20),
            prop::option::of(12u8..15),
            any::<bool>(),
            prop::bool::weighted(0.2),
        ), 1..8)
    ) {
        let folder = Folder::new();
        let mut log = folder.open();
        let (mut everything, mut known) = (Contents::new(), BTreeSet::new());
        for (number, (keys, hundred, compact, reopen)) in (1u64..).zip(batches) {
            let from = log.end_offsets(PATIENCE).unwrap();
            let few = keys.iter().map(|key| (*key < 10).then(|| vec![*key]));
            let many = hundred.iter().flat_map(|key| (0..100).map(|n| Some(vec![*key, n])));
            let records: Vec<_> = few.chain(many).enumerate().map(|(index, key)| Record {
                is_first_of_key: key.as_ref().is_some_and(|key| known.insert(key.clone())),
                key,
                value: (index % 7 != 0).then(|| format!("{number} {index}").into_bytes()),
                ..Record::default()
            }).collect();
            log.publisher("relay").unwrap().publish(&records, number).unwrap();
            let mut reader = log.reader(&from).unwrap();
            let mut new = 0;
            while new < records.len() {
                new += reader.poll(PATIENCE, &mut |record| {
                    everything.insert((record.partition, record.offset), record.to_record());
                }).unwrap();
            }
            if compact {
                log.compact_now().unwrap();
            }
            if reopen {
                drop(reader);
                drop(log);
                log = folder.open();
            }
        }
        let end = log.end_offsets(PATIENCE).unwrap();
        log.compact_now().unwrap();
        drop(log);
        // Reopened: a reader in the same process may still be handed the last records from memory.
        let log = folder.open();
        prop_assert_eq!(read_all(&log), compacted(&everything));
        prop_assert_eq!(log.end_offsets(PATIENCE).unwrap(), end);
    }
}

#[test]
fn a_missing_folder_is_refused() {
    let path = Path::new("/nonexistent/folder/events.db");
    assert!(matches!(EmbeddedLog::open(EmbeddedSettings::at(path)), Err(LogError::Refused(_))));
}

#[test]
fn opening_while_a_publish_is_under_way_sees_its_position() {
    let folder = Folder::new();
    let log = folder.open();
    std::thread::scope(|scope| {
        let mut earlier = log.publisher("relay").unwrap();
        let publishing = scope.spawn(move || {
            let mut published = 0;
            while earlier.publish(&[record("k", "v")], published + 1).is_ok() {
                published += 1;
            }
            published
        });
        let deadline = Instant::now() + PATIENCE;
        while read_all(&log).len() < 20 {
            assert!(Instant::now() < deadline);
        }
        // From when this returns nothing of the earlier one arrives, and the position has all that did.
        let later = log.publisher("relay").unwrap();
        let there = read_all(&log).len() as u64;
        assert_eq!(later.position(), Some(there));
        assert_eq!(publishing.join().unwrap(), there);
        assert_eq!(read_all(&log).len() as u64, there);
    });
}
