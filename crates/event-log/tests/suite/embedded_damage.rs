//! Damaged files of the embedded log: a torn write-ahead log, garbled pages.

use std::fs;

use event_log::{EventLog, LogError, partition_of_key};

use super::embedded_file::{Contents, Folder, read_all, record, try_read_all};

/// The files of a process that was killed after 40 commits: the database file and the write-ahead log.
struct Crashed {
    database: Vec<u8>,
    wal: Vec<u8>,
    /// The contents after each commit.
    history: Vec<Contents>,
}

fn crash() -> Crashed {
    let folder = Folder::new();
    let log = folder.open();
    let mut publisher = log.publisher("relay").unwrap();
    let mut history = vec![Contents::new()];
    for commit in 1..=40u64 {
        let records: Vec<_> = (0..commit % 5).map(|n| record(&format!("k{n}"), format!("{commit} {n}"))).collect();
        publisher.publish(&records, commit).unwrap();
        history.push(read_all(&log));
    }
    let (database, wal) = (fs::read(folder.file("")).unwrap(), fs::read(folder.file("-wal")).unwrap());
    assert!(wal.len() > 100_000, "the commits are in the main file already");
    Crashed { database, wal, history }
}

/// Opens the files and checks that their contents are those after one of the commits.
fn check_prefix(crashed: &Crashed, wal: &[u8]) -> u64 {
    let folder = Folder::new();
    fs::write(folder.file(""), &crashed.database).unwrap();
    fs::write(folder.file("-wal"), wal).unwrap();
    let log = folder.open();
    let mut publisher = log.publisher("relay").unwrap();
    let commits = publisher.position().unwrap_or(0);
    let state = &crashed.history[commits as usize];
    assert_eq!(&read_all(&log), state, "the position agrees with the records");
    publisher.publish(&[record("k0", "after")], commits + 1).unwrap();
    let after = read_all(&log);
    assert_eq!(after.len(), state.len() + 1);
    let k0 = partition_of_key(b"k0", 3);
    let next = state.keys().filter(|(partition, _)| *partition == k0).map(|(_, offset)| offset + 1).max().unwrap_or(0);
    assert_eq!(after[&(k0, next)].value.as_deref(), Some(b"after".as_slice()));
    commits
}

#[test]
fn a_torn_write_ahead_log_leaves_a_prefix_of_the_history() {
    let crashed = crash();
    assert_eq!(check_prefix(&crashed, &crashed.wal), 40);
    let mut reached = Vec::new();
    for step in 0..60 {
        let length = crashed.wal.len() * step / 60 + step % 7;
        reached.push(check_prefix(&crashed, &crashed.wal[..length]));
    }
    assert!(reached.is_sorted() && reached[0] == 0 && reached[59] > 30, "{reached:?}");
    for step in 0..40 {
        let mut wal = crashed.wal.clone();
        let at = wal.len() * step / 40 + 11 * step;
        let end = wal.len().min(at + 1 + step * 40);
        for (index, byte) in wal[at..end].iter_mut().enumerate() {
            *byte ^= (index * 31 + step) as u8 | 1;
        }
        check_prefix(&crashed, &wal);
    }
}

#[test]
fn a_garbled_file_is_never_served() {
    let folder = Folder::new();
    let log = folder.open();
    let mut publisher = log.publisher("relay").unwrap();
    let records: Vec<_> = (0..3_000).map(|n| record(&format!("key {n}"), format!("value {n}").repeat(8))).collect();
    publisher.publish(&records, 1).unwrap();
    let written = read_all(&log);
    drop((publisher, log));
    let sound = fs::read(folder.file("")).unwrap();
    assert!(sound.len() > 300_000, "the records are in the main file");
    let mut damaged = 0;
    for step in 0..100 {
        let folder = Folder::new();
        let mut bytes = sound.clone();
        let at = 100 + (bytes.len() - 200) * step / 100 + step;
        for (index, byte) in bytes[at..at + 1 + step % 60].iter_mut().enumerate() {
            *byte ^= (index * 37 + step) as u8 | 1;
        }
        fs::write(folder.file(""), &bytes).unwrap();
        damaged += u32::from(is_damaged(&folder, &written));
    }
    assert!(damaged > 50, "only {damaged} of 100 were noticed; the rest hit free space");
}

/// Reads what can be read. Each record must be one that was written, and each missing record must be reported.
fn is_damaged(folder: &Folder, written: &Contents) -> bool {
    match folder.try_open().and_then(|log| try_read_all(&log)) {
        Ok(read) => {
            assert!(read.iter().all(|(at, record)| written.get(at) == Some(record)));
            false
        }
        Err(LogError::Damaged(text)) => {
            assert!(text.contains("events.db"), "{text}");
            true
        }
        Err(other) => panic!("not called damage: {other:?}"),
    }
}
