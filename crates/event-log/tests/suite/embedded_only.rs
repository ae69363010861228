//! What only the embedded log has: a file.

use std::fs;
use std::time::{Duration, Instant};

use event_log::{EmbeddedLog, EmbeddedSettings, EventLog, LogError, Positions};
use rusqlite::Connection;

use super::embedded_file::{Contents, Folder, read_all, record};
use super::places::PATIENCE;

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
    // A publisher keeps the file locked without its log.
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
        // No publisher can be opened now: it would not know its position.
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
        // Nothing that outlives the process runs ahead of the sync.
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
    // More records in each partition than its tail holds.
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
    // A compaction in the background may have removed older records. No record is read twice, and the last ones are read.
    assert!(seen.iter().all(|times| *times <= 1));
    assert!(seen[total as usize - 50..].iter().all(|times| *times == 1));
}

#[test]
fn a_folder_is_made_where_that_can_be() {
    let folder = tempfile::tempdir().unwrap();
    EmbeddedLog::open(EmbeddedSettings::at(folder.path().join("new/events.db"))).unwrap();
    let below_a_file = folder.path().join("new/events.db/events.db");
    assert!(matches!(EmbeddedLog::open(EmbeddedSettings::at(below_a_file)), Err(LogError::Refused(_))));
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
        // Once this returns, no record of the earlier publisher arrives, and the position covers all that did.
        let later = log.publisher("relay").unwrap();
        let there = read_all(&log).len() as u64;
        assert_eq!(later.position(), Some(there));
        assert_eq!(publishing.join().unwrap(), there);
        assert_eq!(read_all(&log).len() as u64, there);
    });
}
