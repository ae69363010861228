//! A file that the version before this one wrote: a row for each record.

use std::hash::Hasher;

use event_log::{EventLog, LogError, Record};
use rusqlite::{Connection, params};
use siphasher::sip::SipHasher13;

use super::embedded_only::{Contents, Folder, read_all, try_read_all};

/// Makes such a file, of two partitions, and returns what is in it.
fn write_older(folder: &Folder, records_each: u64) -> Contents {
    let mut connection = Connection::open(folder.file("")).unwrap();
    let transaction = connection.transaction().unwrap();
    transaction
        .execute_batch(
            "CREATE TABLE publisher_positions (name TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT, WITHOUT ROWID;
             CREATE TABLE group_positions (group_name TEXT, partition INTEGER, next_offset INTEGER NOT NULL,
                 PRIMARY KEY (group_name, partition)) STRICT, WITHOUT ROWID;
             CREATE TABLE partitions (partition INTEGER PRIMARY KEY, clean_end INTEGER NOT NULL,
                 clean_records INTEGER NOT NULL) STRICT;
             INSERT INTO publisher_positions VALUES ('relay', 77);
             INSERT INTO group_positions VALUES ('closer', 1, 5);
             PRAGMA user_version = 1;",
        )
        .unwrap();
    let mut contents = Contents::new();
    for partition in 0..2 {
        transaction
            .execute_batch(&format!(
                "CREATE TABLE records_{partition} (record_offset INTEGER PRIMARY KEY, key BLOB, value BLOB,
                     headers BLOB NOT NULL, checksum INTEGER NOT NULL) STRICT;
                 INSERT INTO partitions VALUES ({partition}, 0, 0);"
            ))
            .unwrap();
        let sql = format!("INSERT INTO records_{partition} VALUES (?, ?, ?, ?, ?)");
        let mut insert = transaction.prepare(&sql).unwrap();
        for offset in (0..records_each).map(|number| number * 3 + 1) {
            let key = (offset % 5 > 0).then(|| format!("k{partition} {offset}").into_bytes());
            let value = (offset % 7 > 0).then(|| format!("v{offset}").into_bytes());
            let checksum = checksum(offset, key.as_deref(), value.as_deref());
            insert.execute(params![offset as i64, key, value, [0u8; 0], checksum]).unwrap();
            contents.insert((partition, offset), Record { key, value, ..Record::default() });
        }
    }
    transaction.commit().unwrap();
    contents
}

/// As that version made it.
fn checksum(offset: u64, key: Option<&[u8]>, value: Option<&[u8]>) -> i64 {
    let mut hasher = SipHasher13::new();
    hasher.write_u64(offset);
    for part in [key, value] {
        hasher.write_u64(part.map_or(u64::MAX, |part| part.len() as u64));
    }
    hasher.write(key.unwrap_or_default());
    hasher.write(value.unwrap_or_default());
    i64::from(hasher.finish() as u32)
}

#[test]
fn an_older_file_is_brought_up_to_date_with_all_that_is_in_it() {
    let folder = Folder::new();
    let written = write_older(&folder, 25_000);
    for _ in 0..2 {
        let log = folder.open();
        assert_eq!(read_all(&log), written);
        assert_eq!(log.publisher("relay").unwrap().position(), Some(77));
        assert_eq!(log.end_offsets(super::places::PATIENCE).unwrap(), [(0, 74_999), (1, 74_999)].into());
    }
}

#[test]
fn an_upgrade_that_was_cut_short_goes_on() {
    let folder = Folder::new();
    let written = write_older(&folder, 100);
    drop(folder.open());
    // As it was before the last transactions: some records moved, the table of the others still there.
    let older = Folder::new();
    write_older(&older, 100);
    let connection = Connection::open(folder.file("")).unwrap();
    let sql = "ATTACH ?1 AS older";
    connection.execute(sql, [older.file("").to_string_lossy()]).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE records_1 AS SELECT * FROM older.records_1;
             DELETE FROM chunks_1;",
        )
        .unwrap();
    drop(connection);
    assert_eq!(read_all(&folder.open()), written);
}

#[test]
fn a_garbled_record_of_an_older_file_is_not_taken_over() {
    let folder = Folder::new();
    write_older(&folder, 100);
    Connection::open(folder.file(""))
        .unwrap()
        .execute("UPDATE records_1 SET value = x'00' WHERE record_offset = 4", [])
        .unwrap();
    let refused = folder.try_open().and_then(|log| try_read_all(&log));
    assert!(
        matches!(&refused, Err(LogError::Damaged(text)) if text.contains("offset 4 of partition 1")),
        "{refused:?}"
    );
}
