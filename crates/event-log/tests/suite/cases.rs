//! What every event log does. Each case has its own names of groups and publishers, because cases share a real Kafka.

use std::collections::{BTreeMap, HashSet};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use event_log::{
    Committed, DEFAULT_PARTITION_COUNT, EventLog, GroupReader, HeaderList, LogError, MAX_NOTE_BYTES, Positions, Reader,
    Record, partition_of_key,
};

use super::places::{PATIENCE, Place};

/// A record that was read, with its place.
type Read = (u32, u64, Record);

fn record(key: &str, value: &str) -> Record {
    Record { key: Some(key.into()), value: Some(value.into()), ..Record::default() }
}

/// A name that no other run uses.
fn unique(name: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    format!("{name}-{}", folder.path().file_name().unwrap().to_string_lossy().replace('.', ""))
}

fn publish(log: &dyn EventLog, records: &[Record]) {
    log.publisher(&unique("case")).unwrap().publish(records, 1).unwrap();
}

/// Reads until `enough` returns true.
fn read_until(reader: &mut dyn Reader, mut enough: impl FnMut(&dyn Reader, &[Read]) -> bool) -> Vec<Read> {
    let deadline = Instant::now() + PATIENCE;
    let mut read = Vec::new();
    while !enough(reader, &read) {
        assert!(Instant::now() < deadline, "stuck at {:?} after {} records", reader.positions(), read.len());
        reader
            .poll(Duration::from_millis(50), &mut |record| {
                read.push((record.partition, record.offset, record.to_record()))
            })
            .unwrap();
    }
    read
}

fn read_to_end(log: &dyn EventLog, reader: &mut dyn Reader) -> Vec<Read> {
    let end = log.end_offsets(PATIENCE).unwrap();
    read_until(reader, |reader, _| reaches(&reader.positions(), &end))
}

fn reaches(positions: &Positions, end: &Positions) -> bool {
    end.iter().all(|(partition, end)| positions.get(partition).copied().unwrap_or(0) >= *end)
}

fn values(read: &[Read]) -> Vec<String> {
    let mut values: Vec<_> =
        read.iter().map(|(_, _, record)| String::from_utf8(record.value.clone().unwrap()).unwrap()).collect();
    values.sort();
    values
}

/// `count` records over a dozen keys. Their values sort in the order of creation.
fn numbered(prefix: &str, count: usize) -> Vec<Record> {
    (0..count).map(|n| record(&format!("account-{}", n % 12), &format!("{prefix}{n:06}"))).collect()
}

pub(crate) fn a_key_keeps_its_partition_and_its_order(place: &dyn Place) {
    let log = place.open();
    let records = numbered("v", 240);
    let mut publisher = log.publisher(&unique("order")).unwrap();
    for (position, batch) in (1..).zip(records.chunks(7)) {
        publisher.publish(batch, position).unwrap();
    }
    let read = read_to_end(&*log, &mut *log.reader(&Positions::new()).unwrap());
    assert_eq!(read.len(), records.len());
    let mut last_offset = BTreeMap::new();
    let mut last_value = BTreeMap::new();
    for (partition, offset, record) in &read {
        let key = record.key.clone().unwrap();
        assert_eq!(*partition, partition_of_key(&key, DEFAULT_PARTITION_COUNT));
        assert!(last_offset.insert(*partition, *offset).is_none_or(|last| last < *offset));
        let value = record.value.clone();
        assert!(last_value.insert(key, value.clone()).is_none_or(|last| last < value));
    }
}

pub(crate) fn records_come_back_as_they_were_published(place: &dyn Place) {
    let log = place.open();
    let header = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
    let binary: Vec<u8> = (0..=255).collect();
    let records = vec![
        Record {
            key: Some(b"plain".to_vec()),
            value: Some(b"value".to_vec()),
            headers: HeaderList::from_iter([header("ce_id", b"1")]),
        },
        Record { key: Some(b"tombstone".to_vec()), value: None, ..Record::default() },
        Record {
            key: Some(b"empty value".to_vec()),
            value: Some(vec![]),
            headers: HeaderList::from_iter([header("empty", b"")]),
        },
        Record { key: Some(vec![]), value: Some(b"empty key".to_vec()), ..Record::default() },
        Record {
            key: Some(binary.clone()),
            value: Some(binary.clone()),
            headers: HeaderList::from_iter([header("binary", &binary)]),
        },
        Record {
            key: Some(b"repeated".to_vec()),
            value: Some(b"headers".to_vec()),
            headers: HeaderList::from_iter([header("name", b"first"), header("other", b"x"), header("name", b"last")]),
        },
        Record { key: Some(b"large".to_vec()), value: Some(vec![7; 100_000]), ..Record::default() },
    ];
    publish(&*log, &records);
    let mut reader = log.reader(&Positions::new()).unwrap();
    let mut looked_up = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    let mut read = Vec::new();
    while read.len() < records.len() && Instant::now() < deadline {
        reader
            .poll(Duration::from_millis(50), &mut |record| {
                looked_up.push((record.headers.get("name").map(<[u8]>::to_vec), record.headers.get("none").is_some()));
                read.push(record.to_record());
            })
            .unwrap();
    }
    assert_eq!(read.len(), records.len());
    for record in &records {
        assert!(read.contains(record), "{record:?} is not in {read:?}");
    }
    for (record, (name, none)) in read.iter().zip(looked_up) {
        let repeated = record.key.as_deref() == Some(b"repeated");
        assert_eq!(name.as_deref(), repeated.then_some(b"last".as_slice()));
        assert!(!none);
    }
}

pub(crate) fn a_reader_goes_on_from_its_positions(place: &dyn Place) {
    let log = place.open();
    publish(&*log, &numbered("old", 50));
    let mut first = log.reader(&Positions::new()).unwrap();
    assert_eq!(read_to_end(&*log, &mut *first).len(), 50);
    publish(&*log, &numbered("new", 30));
    let mut second = log.reader(&first.positions()).unwrap();
    let read = read_to_end(&*log, &mut *second);
    assert_eq!(values(&read), values_of(&numbered("new", 30)));
}

pub(crate) fn a_reader_begins_in_the_middle_of_a_batch(place: &dyn Place) {
    let log = place.open();
    publish(&*log, &numbered("v", 60));
    let read_from = |from: &Positions| {
        let mut read = read_to_end(&*log, &mut *log.reader(from).unwrap());
        read.sort_by_key(|(partition, offset, _)| (*partition, *offset));
        read
    };
    let middle: Positions =
        log.end_offsets(PATIENCE).unwrap().into_iter().map(|(partition, end)| (partition, end / 2)).collect();
    let mut expected = read_from(&Positions::new());
    expected.retain(|(partition, offset, _)| *offset >= middle[partition]);
    assert!(expected.len() < 60);
    assert_eq!(read_from(&middle), expected);
}

fn values_of(records: &[Record]) -> Vec<String> {
    let mut values: Vec<_> =
        records.iter().map(|record| String::from_utf8(record.value.clone().unwrap()).unwrap()).collect();
    values.sort();
    values
}

pub(crate) fn positions_the_log_does_not_have_mean_the_start(place: &dyn Place) {
    let log = place.open();
    publish(&*log, &numbered("v", 40));
    let from = (0..DEFAULT_PARTITION_COUNT).map(|partition| (partition, 1_000_000)).chain([(99, 5)]).collect();
    let mut reader = log.reader(&from).unwrap();
    assert!(!reaches(&reader.positions(), &log.end_offsets(PATIENCE).unwrap()));
    assert_eq!(read_to_end(&*log, &mut *reader).len(), 40);
}

pub(crate) fn a_waiting_reader_sees_new_records(place: &dyn Place) {
    let log = place.open();
    let mut reader = log.reader(&Positions::new()).unwrap();
    let mut publisher = log.publisher(&unique("waiting")).unwrap();
    let (polling, reads) = mpsc::channel();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            polling.send(()).unwrap();
            let begun = Instant::now();
            let count = reader.poll(PATIENCE, &mut |_| {}).unwrap();
            (count, begun.elapsed())
        });
        reads.recv().unwrap();
        publisher.publish(&[record("k", "v")], 1).unwrap();
        let (count, waited) = waiting.join().unwrap();
        assert_eq!(count, 1);
        assert!(waited < PATIENCE);
    });
}

pub(crate) fn every_reader_sees_everything(place: &dyn Place) {
    let log = place.open();
    let mut early = log.reader(&Positions::new()).unwrap();
    publish(&*log, &numbered("v", 60));
    let mut late = log.reader(&Positions::new()).unwrap();
    let (early, late) = (read_to_end(&*log, &mut *early), read_to_end(&*log, &mut *late));
    assert_eq!(values(&early), values_of(&numbered("v", 60)));
    assert_eq!(values(&early), values(&late));
}

pub(crate) fn positions_reach_the_end(place: &dyn Place) {
    let log = place.open();
    let mut reader = log.reader(&Positions::new()).unwrap();
    let mut publisher = log.publisher(&unique("end")).unwrap();
    for position in 1..=5 {
        publisher.publish(&numbered("v", 20), position).unwrap();
        // On Kafka a transaction marker follows each publish, a moment after it has returned.
        read_until(&mut *reader, |reader, _| reader.positions() == log.end_offsets(PATIENCE).unwrap());
    }
}

pub(crate) fn durable_positions_reach_the_end_too(place: &dyn Place) {
    let log = place.open();
    publish(&*log, &numbered("v", 20));
    let mut reader = log.reader(&Positions::new()).unwrap();
    read_to_end(&*log, &mut *reader);
    assert_eq!(reader.durable_positions(), reader.positions());
}

pub(crate) fn the_end_of_an_empty_log_is_reached_at_once(place: &dyn Place) {
    let log = place.open();
    let end = log.end_offsets(PATIENCE).unwrap();
    assert_eq!(end, (0..DEFAULT_PARTITION_COUNT).map(|partition| (partition, 0)).collect());
    let mut reader = log.reader(&Positions::new()).unwrap();
    assert_eq!(reader.positions(), end);
    assert_eq!(reader.poll(Duration::from_millis(1), &mut |_| panic!("a record from nowhere")).unwrap(), 0);
}

pub(crate) fn a_publishers_position_is_kept(place: &dyn Place) {
    let (name, other) = (unique("position"), unique("other"));
    let log = place.open();
    let mut first = log.publisher(&name).unwrap();
    assert_eq!(first.position(), None);
    first.publish(&numbered("a", 5), 7).unwrap();
    assert_eq!(first.position(), Some(7));
    drop(first);
    assert_eq!(log.publisher(&name).unwrap().position(), Some(7));
    assert_eq!(log.publisher(&other).unwrap().position(), None);
    let mut second = log.publisher(&name).unwrap();
    second.publish(&[], 9).unwrap();
    second.publish(&numbered("b", 5), 1 << 40).unwrap();
    drop(second);
    drop(log);
    let log = place.open();
    assert_eq!(log.publisher(&name).unwrap().position(), Some(1 << 40));
    assert_eq!(read_to_end(&*log, &mut *log.reader(&Positions::new()).unwrap()).len(), 10);
}

pub(crate) fn a_publishers_note_is_kept_with_its_position(place: &dyn Place) {
    let name = unique("note");
    // Brokers show an offset soon after they have answered the commit of its transaction.
    let wait_for = |log: &dyn EventLog, expected: &Committed| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = log.committed(&name, PATIENCE).unwrap();
            if found.as_ref() == Some(expected) {
                return;
            }
            assert!(Instant::now() < deadline, "{found:?} is not {expected:?}");
            std::thread::yield_now();
        }
    };
    let log = place.open();
    assert_eq!(log.committed(&name, PATIENCE).unwrap(), None);
    let mut publisher = log.publisher(&name).unwrap();
    assert_eq!(publisher.note(), "");
    publisher.set_note(r#"{"a": "note of two words"}"#.to_owned());
    publisher.publish(&numbered("a", 5), 7).unwrap();
    let expected = Committed { position: 7, note: r#"{"a": "note of two words"}"#.to_owned() };
    wait_for(&*log, &expected);
    // Asking fences nobody.
    publisher.publish(&numbered("b", 5), 8).unwrap();
    drop(publisher);
    drop(log);
    let log = place.open();
    wait_for(&*log, &Committed { position: 8, ..expected.clone() });
    let mut publisher = log.publisher(&name).unwrap();
    assert_eq!(publisher.note(), expected.note);
    let long = Committed { position: 8, note: "n".repeat(MAX_NOTE_BYTES) };
    publisher.set_note(long.note.clone());
    publisher.publish(&[], 8).unwrap();
    wait_for(&*log, &long);
}

pub(crate) fn a_new_publisher_fences_the_earlier_one(place: &dyn Place) {
    let name = unique("fenced");
    let log = place.open();
    let mut earlier = log.publisher(&name).unwrap();
    earlier.publish(&[record("k", "1")], 1).unwrap();
    let mut later = log.publisher(&name).unwrap();
    assert_eq!(later.position(), Some(1));
    let refused = earlier.publish(&[record("k", "stale")], 2);
    assert!(matches!(refused, Err(LogError::Fenced(_))), "{refused:?}");
    later.publish(&[record("k", "2")], 2).unwrap();
    let again = earlier.publish(&[record("k", "stale")], 3);
    assert!(again.is_err());
    drop(earlier);
    assert_eq!(log.publisher(&name).unwrap().position(), Some(2));
    let read = read_to_end(&*log, &mut *log.reader(&Positions::new()).unwrap());
    assert_eq!(values(&read), ["1", "2"]);
}

pub(crate) fn publishers_of_other_names_go_on(place: &dyn Place) {
    let log = place.open();
    let names = [unique("lane"), unique("lane")];
    let mut lanes = names.each_ref().map(|name| log.publisher(name).unwrap());
    for position in 1..=3 {
        for lane in &mut lanes {
            lane.publish(&numbered("v", 4), position).unwrap();
        }
    }
    assert_eq!(names.map(|name| log.publisher(&name).unwrap().position()), [Some(3), Some(3)]);
    assert_eq!(read_to_end(&*log, &mut *log.reader(&Positions::new()).unwrap()).len(), 24);
}

pub(crate) fn many_records_arrive_whole(place: &dyn Place) {
    let log = place.open();
    let records = numbered("v", 6_000);
    let mut publisher = log.publisher(&unique("many")).unwrap();
    for (position, batch) in (1..).zip(records.chunks(1_500)) {
        publisher.publish(batch, position).unwrap();
    }
    let read = read_to_end(&*log, &mut *log.reader(&Positions::new()).unwrap());
    assert_eq!(values(&read), values_of(&records));
}

fn poll_group(member: &mut dyn GroupReader, wait: Duration) -> Vec<String> {
    let mut read = Vec::new();
    member
        .poll(wait, &mut |record| read.push(String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap()))
        .unwrap();
    read
}

pub(crate) fn the_members_of_a_group_share_the_work(place: &dyn Place) {
    let log = place.open();
    let group = unique("shared");
    let mut members = [log.group_reader(&group).unwrap(), log.group_reader(&group).unwrap()];
    let mut publisher = log.publisher(&unique("share")).unwrap();
    let mut handled = [HashSet::new(), HashSet::new()];
    let mut published = HashSet::new();
    let deadline = Instant::now() + PATIENCE;
    let mut round = 0;
    loop {
        assert!(Instant::now() < deadline, "{} and {} of {}", handled[0].len(), handled[1].len(), published.len());
        // Publish until both members have read records.
        if handled.iter().any(HashSet::is_empty) {
            round += 1;
            let batch = numbered(&format!("round{round:05}-"), 12);
            publisher.publish(&batch, round).unwrap();
            published.extend(values_of(&batch));
        }
        for (member, handled) in members.iter_mut().zip(&mut handled) {
            handled.extend(poll_group(&mut **member, Duration::from_millis(20)));
            member.commit().unwrap();
        }
        let all: HashSet<_> = handled.iter().flatten().cloned().collect();
        if all == published && handled.iter().all(|handled| !handled.is_empty()) {
            return;
        }
    }
}

/// Polls until `count` records were read.
fn poll_group_for(member: &mut dyn GroupReader, count: usize) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    let mut read = Vec::new();
    while read.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count} records", read.len());
        read.extend(poll_group(member, Duration::from_millis(50)));
    }
    read.sort();
    read
}

pub(crate) fn what_a_group_has_not_committed_is_handed_out_again(place: &dyn Place) {
    let group = unique("again");
    let log = place.open();
    publish(&*log, &numbered("a", 20));
    let mut member = log.group_reader(&group).unwrap();
    assert_eq!(poll_group_for(&mut *member, 20), values_of(&numbered("a", 20)));
    member.commit().unwrap();
    publish(&*log, &numbered("b", 20));
    assert_eq!(poll_group_for(&mut *member, 20), values_of(&numbered("b", 20)));
    drop(member);
    drop(log);
    let log = place.open();
    let mut member = log.group_reader(&group).unwrap();
    // Records that were not committed are read again, and no others.
    assert_eq!(poll_group_for(&mut *member, 20), values_of(&numbered("b", 20)));
    member.commit().unwrap();
    publish(&*log, &numbered("c", 20));
    assert_eq!(poll_group_for(&mut *member, 20), values_of(&numbered("c", 20)));
}

pub(crate) fn groups_do_not_share_positions(place: &dyn Place) {
    let log = place.open();
    publish(&*log, &numbered("v", 15));
    let mut members = [unique("one"), unique("two")].map(|group| log.group_reader(&group).unwrap());
    for member in &mut members {
        assert_eq!(poll_group_for(&mut **member, 15).len(), 15);
        member.commit().unwrap();
    }
}

pub(crate) fn committing_nothing_is_no_error(place: &dyn Place) {
    let log = place.open();
    log.group_reader(&unique("nothing")).unwrap().commit().unwrap();
}
