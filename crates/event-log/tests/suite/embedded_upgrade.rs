//! Files that versions before this one wrote: a row for each record, or wide chunks.

use std::hash::Hasher;

use event_log::{EventLog, HeaderList, LogError, Record};
use rusqlite::{Connection, params};
use siphasher::sip::SipHasher13;

use super::embedded_compaction::compacted;
use super::embedded_file::{Contents, Folder, read_all, record, try_read_all};

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
            let id = offset.to_string();
            let headers = [("ce_id", &*id), ("other", "")].into_iter().take(offset as usize / 3 % 3).collect();
            let wide = wide(&headers);
            let checksum = checksum(offset, key.as_deref(), value.as_deref(), &wide);
            insert.execute(params![offset as i64, key, value, wide, checksum]).unwrap();
            contents.insert((partition, offset), Record { key, value, headers, ..Record::default() });
        }
    }
    transaction.commit().unwrap();
    contents
}

/// Headers as those versions encoded them.
fn wide(headers: &HeaderList) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in headers.iter() {
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
        bytes.extend([name.as_bytes(), value].concat());
    }
    bytes
}

/// As that version made it.
fn checksum(offset: u64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[u8]) -> i64 {
    let mut hasher = SipHasher13::new();
    hasher.write_u64(offset);
    for part in [key, value] {
        hasher.write_u64(part.map_or(u64::MAX, |part| part.len() as u64));
    }
    hasher.write(key.unwrap_or_default());
    hasher.write(value.unwrap_or_default());
    hasher.write(headers);
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

/// Makes a file of wide chunks, and returns what is in it: records with and without key, value and headers, in chunks of three.
fn write_wide(folder: &Folder) -> Contents {
    drop(folder.open());
    let connection = Connection::open(folder.file("")).unwrap();
    connection.pragma_update(None, "user_version", 2).unwrap();
    let long = "x".repeat(700);
    let headers =
        [vec![], vec![("ce_id", "1"), ("traceparent", ""), ("", "no name")], vec![("other", &*long), ("other", "2")]];
    let records: Vec<_> = (0..30)
        .map(|number| Record {
            key: (number % 4 > 0).then(|| format!("k{}", number % 7).into_bytes()),
            value: (number % 5 > 0).then(|| format!("v{number}").into_bytes()),
            headers: headers[number % 3].iter().copied().collect::<HeaderList>(),
            ..Record::default()
        })
        .collect();
    for (number, chunk) in records.chunks(3).enumerate() {
        let (first, last) = (3 * number as u64, 3 * number as u64 + 2);
        let mut bytes = Vec::new();
        for (offset, record) in (first..).zip(chunk) {
            let list = wide(&record.headers);
            bytes.extend(offset.to_le_bytes());
            let parts = [record.key.as_deref(), record.value.as_deref(), Some(&*list)];
            parts.iter().for_each(|part| bytes.extend(part.map_or(u32::MAX, |part| part.len() as u32).to_le_bytes()));
            parts.iter().flatten().for_each(|part| bytes.extend(*part));
        }
        let checked = [&first.to_le_bytes()[..], &last.to_le_bytes(), &bytes].concat();
        let row = params![first as i64, last as i64, 3, crc32fast::hash(&checked), bytes];
        connection.execute("INSERT INTO chunks_1 VALUES (?, ?, ?, ?, ?)", row).unwrap();
    }
    (0..).zip(records).map(|(offset, record)| ((1, offset), record)).collect()
}

#[test]
fn wide_chunks_are_read_beside_others_and_compacted_with_them() {
    let folder = Folder::new();
    let mut written = write_wide(&folder);
    let log = folder.open();
    let version = || {
        let connection = Connection::open(folder.file("")).unwrap();
        connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!((read_all(&log), version()), (written.clone(), 3), "the version before this one refuses the file");
    // Keys that go to any partition, those of the wide chunks among them.
    let more: Vec<_> = (0..60).map(|number| record(&format!("k{}", number % 20), format!("more {number}"))).collect();
    log.publisher("test").unwrap().publish(&more, 1).unwrap();
    drop(log);
    let log = folder.open();
    let all = read_all(&log);
    assert_eq!(all.len(), written.len() + more.len());
    written.retain(|at, record| all.get(at) != Some(record));
    assert!(written.is_empty(), "lost or changed: {written:?}");
    log.compact_now().unwrap();
    assert_eq!(read_all(&log), compacted(&all));
    drop(log);
    assert_eq!(read_all(&folder.open()), compacted(&all));
}

#[test]
fn a_garbled_wide_chunk_is_noticed() {
    let folder = Folder::new();
    write_wide(&folder);
    let sql = "UPDATE chunks_1 SET records = CAST(records || x'00' AS BLOB) WHERE first_offset = 6";
    assert_eq!(Connection::open(folder.file("")).unwrap().execute(sql, []).unwrap(), 1);
    let refused = folder.try_open().and_then(|log| try_read_all(&log));
    assert!(
        matches!(&refused, Err(LogError::Damaged(text)) if text.contains("offset 6 on of partition 1")),
        "{refused:?}"
    );
}
