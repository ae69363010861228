//! Batches that cannot be decoded, and compressions that can.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use event_log::{EventLog, GroupReader, KafkaLog, PassedOver, Positions, Reader, Record, partition_of_key};

use super::places::{MOCK_TOPIC, MockKafka, PATIENCE, Place, RealKafka};

/// Two keys of different partitions.
const KEYS: [&str; 2] = ["a", "b"];

fn record(key: &str, value: &str) -> Record {
    Record { key: Some(key.into()), value: Some(value.into()), ..Record::default() }
}

fn partition(key: &str) -> u32 {
    partition_of_key(key.as_bytes(), 3)
}

/// Appends a batch of `count` records that claims to be compressed with snappy and is not. The mock cluster does not check it.
fn put_damaged_batch(place: &MockKafka, partition: u32, count: i32) {
    let mut batch = Vec::new();
    batch.extend([0; 4]); // leader epoch
    batch.push(2); // magic
    batch.extend([0; 4]); // checksum
    batch.extend(2_i16.to_be_bytes()); // snappy
    batch.extend((count - 1).to_be_bytes()); // last offset delta
    batch.extend([0; 16]); // timestamps
    batch.extend((-1_i64).to_be_bytes()); // producer
    batch.extend((-1_i16).to_be_bytes()); // epoch
    batch.extend((-1_i32).to_be_bytes()); // sequence
    batch.extend(count.to_be_bytes());
    batch.extend([0xff; 32]);
    let mut records = vec![0; 8]; // base offset
    records.extend((batch.len() as i32).to_be_bytes());
    records.extend(batch);

    let text = |text: &str| [&(text.len() as i16).to_be_bytes()[..], text.as_bytes()].concat();
    let mut request = Vec::new();
    request.extend(0_i16.to_be_bytes()); // Produce
    request.extend(7_i16.to_be_bytes()); // version
    request.extend(1_i32.to_be_bytes()); // correlation
    request.extend(text("test"));
    request.extend((-1_i16).to_be_bytes()); // no transaction
    request.extend((-1_i16).to_be_bytes()); // acks
    request.extend(5_000_i32.to_be_bytes()); // timeout
    request.extend(1_i32.to_be_bytes()); // topics
    request.extend(text(MOCK_TOPIC));
    request.extend(1_i32.to_be_bytes()); // partitions
    request.extend((partition as i32).to_be_bytes());
    request.extend((records.len() as i32).to_be_bytes());
    request.extend(records);
    let mut broker = TcpStream::connect(place.cluster().bootstrap_servers()).unwrap();
    broker.write_all(&(request.len() as i32).to_be_bytes()).unwrap();
    broker.write_all(&request).unwrap();
    let mut answer = [0; 4];
    broker.read_exact(&mut answer).unwrap();
}

/// Reads until `done`, and returns the values and the reported trouble.
fn read_until(
    reader: &mut dyn Reader,
    mut done: impl FnMut(&mut dyn Reader, &[String]) -> bool,
) -> (Vec<String>, Vec<String>) {
    let (deadline, mut values, mut troubles) = (Instant::now() + PATIENCE, Vec::new(), Vec::new());
    while !done(reader, &values) {
        assert!(Instant::now() < deadline, "{values:?} {troubles:?} {:?}", reader.positions());
        let value = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        reader.poll(Duration::from_millis(50), &mut |record| values.push(value(record.value))).unwrap();
        troubles.extend(reader.trouble().filter(|trouble| !troubles.contains(trouble)));
    }
    (values, troubles)
}

#[test]
fn a_damaged_batch_is_trouble_of_its_partition_alone_and_is_passed_over() {
    let place = MockKafka::new();
    let log = place.open();
    let [damaged, whole] = KEYS.map(partition);
    assert_ne!(damaged, whole);
    let mut publisher = log.publisher("relay").unwrap();
    publisher.publish(&[record(KEYS[0], "before")], 1).unwrap();
    put_damaged_batch(&place, damaged, 3);
    publisher.publish(&[record(KEYS[0], "after")], 2).unwrap();
    let mut reader = log.reader(&Positions::new()).unwrap();
    let mut published = 2;
    let (values, troubles) = read_until(reader.as_mut(), |reader, values| {
        // Although the other partition is read.
        publisher.publish(&[record(KEYS[1], "elsewhere")], published + 1).unwrap();
        published += 1;
        if !values.iter().any(|value| value == "after") {
            assert!(reader.positions()[&damaged] <= 4, "it never claims to be behind what it has not read");
        }
        values.iter().any(|value| value == "after")
    });
    let here: Vec<_> = values.iter().filter(|value| *value != "elsewhere").collect();
    assert_eq!(here, ["before", "after"]);
    assert!(
        troubles.iter().any(|trouble| trouble.starts_with(&format!("partition {damaged} cannot be read at offset 1:"))),
        "{troubles:?}"
    );
    let passed_over = reader.passed_over();
    let [PassedOver { partition, offset: 1, reason }] = &passed_over[..] else { panic!("{passed_over:?}") };
    assert!(*partition == damaged && reason.contains("ecompression"), "{reason}");
    assert_eq!((reader.trouble(), reader.passed_over()), (None, Vec::new()));
}

#[test]
fn a_damaged_batch_at_the_end_is_not_taken_for_read_until_it_is_passed_over() {
    let place = MockKafka::new();
    let log = place.open();
    let damaged = partition(KEYS[0]);
    // One record: librdkafka's own position is after it as soon as it has failed.
    put_damaged_batch(&place, damaged, 1);
    let mut reader = log.reader(&Positions::new()).unwrap();
    let ends = log.end_offsets(PATIENCE).unwrap();
    assert_eq!(ends[&damaged], 1);
    let mut passed_over = Vec::new();
    read_until(reader.as_mut(), |reader, _| {
        passed_over.extend(reader.passed_over());
        assert!(!passed_over.is_empty() || reader.positions()[&damaged] == 0, "nobody has read it");
        reader.positions() == ends
    });
    assert_eq!(passed_over.len(), 1, "{passed_over:?}");
    log.publisher("relay").unwrap().publish(&[record(KEYS[0], "after")], 1).unwrap();
    let (values, _) = read_until(reader.as_mut(), |_, values| !values.is_empty());
    assert_eq!(values, ["after"]);
}

#[test]
fn a_member_of_a_group_passes_over_a_damaged_batch_and_commits_no_position_behind_it_before() {
    let place = MockKafka::new();
    let log = place.open();
    let damaged = partition(KEYS[0]);
    let mut publisher = log.publisher("relay").unwrap();
    publisher.publish(&[record(KEYS[0], "before")], 1).unwrap();
    put_damaged_batch(&place, damaged, 3);
    publisher.publish(&[record(KEYS[0], "after"), record(KEYS[1], "elsewhere")], 2).unwrap();
    let read = |reader: &mut dyn GroupReader, last: &str| {
        let (deadline, mut values) = (Instant::now() + PATIENCE, Vec::new());
        while !values.iter().any(|value| value == last) {
            assert!(Instant::now() < deadline, "{values:?}");
            let value = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
            reader.poll(Duration::from_millis(50), &mut |record| values.push(value(record.value))).unwrap();
        }
        values
    };
    let mut reader = log.group_reader("group").unwrap();
    read(reader.as_mut(), "before");
    reader.commit().unwrap();
    drop(reader);
    // A new member begins at the damaged batch.
    let mut reader = log.group_reader("group").unwrap();
    let values = read(reader.as_mut(), "after");
    assert!(!values.iter().any(|value| value == "before"), "{values:?}");
    reader.commit().unwrap();
    drop(reader);
    publisher.publish(&[record(KEYS[0], "last")], 3).unwrap();
    assert_eq!(read(log.group_reader("group").unwrap().as_mut(), "last"), ["last"]);
}

#[test]
fn every_compression_is_read() {
    let mock = MockKafka::new();
    let settings = [Some(mock.settings()), RealKafka::new().map(|place| place.settings())];
    for settings in settings.into_iter().flatten() {
        for codec in ["gzip", "snappy", "lz4", "zstd"] {
            let mut settings = settings.clone();
            settings.extra.push(("compression.type".to_owned(), codec.to_owned()));
            let log = KafkaLog::open(settings).unwrap();
            let mut reader = log.reader(&log.end_offsets(PATIENCE).unwrap()).unwrap();
            // librdkafka compresses only a batch that becomes smaller.
            let long = codec.repeat(1_000);
            log.publisher(codec).unwrap().publish(&[record("k", &long)], 1).unwrap();
            let (values, _) = read_until(reader.as_mut(), |_, values| !values.is_empty());
            assert_eq!(values, [long], "{codec}");
        }
    }
}
