//! What compaction leaves, and when it runs.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use event_log::{EmbeddedLog, EmbeddedSettings, EventLog, Record};
use proptest::prelude::*;
use rusqlite::Connection;

use super::embedded_file::{Contents, Folder, read_all, record};
use super::places::PATIENCE;

/// What compaction must leave: records without a key, and the last record of each key.
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
    // 16 MB were published. Only the part that is not due for compaction may stay.
    let on_disk = || fs::metadata(folder.file("")).unwrap().len() + fs::metadata(folder.file("-wal")).unwrap().len();
    while on_disk() > 8_000_000 {
        assert!(Instant::now() < deadline, "{} bytes", on_disk());
        std::thread::yield_now();
    }
    let end = log.end_offsets(PATIENCE).unwrap();
    assert_eq!(end.values().sum::<u64>(), 40_000, "offsets are not reused");
    log.compact_now().unwrap();
    assert!(on_disk() < 2_000_000, "{} bytes", on_disk());
    // Reopen the log: before, a reader may get the last records from memory.
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
        publisher.publish(&[record(&format!("k{position}"), "v")], position).unwrap();
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
        // One record in a hundred has an earlier record's key.
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Numbers from 10 on stand for no key. A batch may have a hundred other keys, too. A compaction and a reopening may follow
    /// each batch.
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
        let mut everything = Contents::new();
        for (number, (keys, hundred, compact, reopen)) in (1u64..).zip(batches) {
            let from = log.end_offsets(PATIENCE).unwrap();
            let few = keys.iter().map(|key| (*key < 10).then(|| vec![*key]));
            let many = hundred.iter().flat_map(|key| (0..100).map(|n| Some(vec![*key, n])));
            let records: Vec<_> = few.chain(many).enumerate().map(|(index, key)| Record {
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
        // Reopen the log: before, a reader may get the last records from memory.
        let log = folder.open();
        prop_assert_eq!(read_all(&log), compacted(&everything));
        prop_assert_eq!(log.end_offsets(PATIENCE).unwrap(), end);
    }
}
