//! A row of the file is read as it was written, or refused.

use proptest::prelude::*;
use test_harness::mangled;

use super::*;

fn builder() -> ChunkBuilder {
    let mut builder = ChunkBuilder::default();
    for offset in 5..9 {
        let mut record = Record { key: Some(b"key".to_vec()), value: Some(vec![b'v'; 200]), ..Record::default() };
        record.headers.push("ce_sequence", b"17");
        record.headers.push("another", b"\xff");
        builder.push_record(offset, &record);
    }
    builder.push_record(9, &Record::default());
    builder
}

fn bytes() -> Vec<u8> {
    builder().bytes
}

proptest! {
    #[test]
    fn a_row_that_was_changed_is_refused(bytes in mangled(vec![bytes()])) {
        let builder = builder();
        let (first, last, _, sum, written) = builder.row().unwrap();
        let found = Chunk::checked(0, (first as u64, last as u64), sum, &bytes);
        prop_assert_eq!(found.is_some(), bytes == written);
    }

    #[test]
    fn records_end_with_the_bytes_whatever_they_are(bytes in mangled(vec![bytes()])) {
        let chunk = Chunk { partition: 0, first: 5, last: 9, bytes: &bytes };
        let records: Vec<_> = chunk.records().collect();
        prop_assert!(records.len() <= bytes.len());
        let mut again = ChunkBuilder::default();
        for record in records.iter().flatten() {
            // Headers that cannot be read are no headers.
            let _ = record.headers.get("another");
            again.push(*record);
        }
        let truncated = records.last().is_some_and(Option::is_none);
        prop_assert!(truncated || again.bytes() <= bytes.len());
    }
}
