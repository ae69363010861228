//! Changes of the topic: deletion, new partitions, small limits, lost records. And the publisher's position.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::places::{PATIENCE, Place, RealKafka};
use event_log::{EventLog, KafkaSettings, LogError, Positions, Publisher, Record, partition_of_key};

fn record(key: &str, bytes: usize) -> Record {
    Record { key: Some(key.into()), value: Some(vec![b'v'; bytes]), ..Record::default() }
}

/// Runs an operation of an admin client, and waits for its end.
fn administer<T>(settings: &KafkaSettings, work: impl AsyncFnOnce(&AdminClient<DefaultClientContext>) -> T) -> T {
    let admin = ClientConfig::new().set("bootstrap.servers", &settings.brokers).create().unwrap();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work(&admin))
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE))
}

/// Sets the largest batch that the topic accepts.
fn limit(settings: &KafkaSettings, bytes: &str) {
    configure(settings, "compact", bytes);
}

fn configure(settings: &KafkaSettings, policy: &str, bytes: &str) {
    let config = AlterConfig::new(ResourceSpecifier::Topic(&settings.topic));
    let config = config.set("cleanup.policy", policy).set("max.message.bytes", bytes);
    let altered = administer(settings, async |admin| admin.alter_configs([&config], &options()).await);
    assert!(altered.unwrap().iter().all(Result::is_ok));
}

#[track_caller]
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Some(found) => return found,
            None => assert!(Instant::now() < deadline, "{what}: not in {PATIENCE:?}"),
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Publishes as the relay does: after each failure it opens a new publisher.
fn publish(log: &dyn EventLog, name: &str, records: &[Record], position: u64) {
    until("it is published", || log.publisher(name).ok()?.publish(records, position).ok());
}

/// A topic of its own for this log. Its name is also the publisher's.
fn real() -> Option<(Box<dyn EventLog>, KafkaSettings, String)> {
    let place = RealKafka::new()?;
    let settings = place.settings();
    Some((place.open(), settings.clone(), settings.topic))
}

#[test]
fn no_client_makes_a_topic_that_was_deleted_but_the_one_that_is_asked_to() {
    let Some((log, settings, name)) = real() else { return };
    log.prepare().unwrap();
    let mut publisher = log.publisher(&name).unwrap();
    let mut readers = (log.reader(&Positions::new()).unwrap(), log.group_reader(&name).unwrap());
    publisher.publish(&[record("a", 10)], 1).unwrap();
    let deleted = administer(&settings, async |admin| admin.delete_topics(&[&name], &options()).await);
    assert!(deleted.unwrap().iter().all(Result::is_ok));
    let observer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &settings.brokers).create().unwrap();
    let exists = || {
        let all = observer.fetch_metadata(None, PATIENCE).unwrap();
        all.topics().iter().any(|topic| topic.name() == name)
    };
    until("it is gone", || (!exists()).then_some(()));
    // The brokers create topics on request. No client requests one, even with records in flight.
    let failed = publisher.publish(&[record("a", 10)], 2);
    assert!(failed.is_err());
    assert!(log.publisher(&name).is_err() && log.end_offsets(Duration::from_secs(1)).is_err());
    for _ in 0..10 {
        let _ = readers.0.poll(Duration::from_millis(50), &mut |_| {});
        let _ = readers.1.poll(Duration::from_millis(50), &mut |_| {});
    }
    assert!(!exists());
    until("it is made", || log.prepare().ok());
    assert_eq!(log.end_offsets(PATIENCE).unwrap().len(), 3);
    assert!(log.warnings().is_empty(), "{:?}", log.warnings());
}

#[test]
fn partitions_that_are_added_are_read_within_seconds() {
    let Some((log, settings, name)) = real() else { return };
    let mut readers = (log.reader(&Positions::new()).unwrap(), log.group_reader(&name).unwrap());
    let added = NewPartitions::new(&name, 5);
    let made = administer(&settings, async |admin| admin.create_partitions([&added], &options()).await);
    assert!(made.unwrap().iter().all(Result::is_ok));
    until("all clients know them", || (log.end_offsets(PATIENCE).unwrap().len() == 5).then_some(()));
    let key = (0..).map(|n: u32| n.to_string()).find(|key| partition_of_key(key.as_bytes(), 5) == 4).unwrap();
    let begun = Instant::now();
    publish(log.as_ref(), &name, &[record(&key, 1)], 1);
    let (mut read, mut read_by_group) = (0, 0);
    until("both have read it", || {
        readers.0.poll(Duration::from_millis(20), &mut |record| read += u32::from(record.partition == 4)).unwrap();
        readers
            .1
            .poll(Duration::from_millis(20), &mut |record| read_by_group += u32::from(record.partition == 4))
            .unwrap();
        (read > 0 && read_by_group > 0).then_some(())
    });
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    until("it stands at the end", || {
        readers.0.poll(Duration::from_millis(20), &mut |_| {}).unwrap();
        (readers.0.positions() == log.end_offsets(PATIENCE).unwrap()).then_some(())
    });
}

#[test]
fn a_batch_that_is_larger_than_the_topic_allows_is_published_in_smaller_ones() {
    let Some((log, settings, name)) = real() else { return };
    let records: Vec<_> = (0..500).map(|n| record(&format!("key {n}"), 300)).collect();
    // This log has not read the limit yet. The next log reads it from the topic's settings.
    limit(&settings, "16384");
    publish(log.as_ref(), &name, &records, 1);
    let log = RealKafka::reopened(&settings);
    log.prepare().unwrap();
    publish(log.as_ref(), &name, &records, 2);
    let (mut reader, mut read) = (log.reader(&Positions::new()).unwrap(), 0);
    until("all are there", || {
        read += reader.poll(Duration::from_millis(50), &mut |_| {}).unwrap();
        (read >= 2 * records.len()).then_some(())
    });
}

#[test]
fn a_record_that_is_too_large_alone_is_named_and_goes_when_it_may() {
    let Some((log, settings, name)) = real() else { return };
    limit(&settings, "16384");
    let records = [record("small", 100), record("the large one", 20_000), record("behind it", 100)];
    until("it is named", || match log.publisher(&name).ok()?.publish(&records, 3) {
        Err(LogError::Refused(text)) => text.contains("record of the large one").then_some(()),
        other => panic!("{other:?}"),
    });
    limit(&settings, "1048576");
    publish(log.as_ref(), &name, &records, 3);
}

#[test]
fn a_publisher_with_nothing_to_publish_commits_its_position_again() {
    let Some((log, settings, name)) = real() else { return };
    log.publisher(&name).unwrap().publish(&[record("a", 1)], 7).unwrap();
    let mut publisher = log.publisher(&name).unwrap();
    let group = format!("{name}-{name}");
    // As brokers do after `offsets.retention.minutes`.
    until("it is forgotten", || {
        let deleted = administer(&settings, async |admin| admin.delete_groups(&[&group], &options()).await);
        deleted.unwrap().iter().all(Result::is_ok).then_some(())
    });
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &settings.brokers).set("group.id", &group).create().unwrap();
    until("it is there again", || {
        publisher.check().unwrap();
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&name, 0);
        let found = consumer.committed_offsets(asked, PATIENCE).unwrap();
        (found.elements()[0].offset() == Offset::Offset(7)).then_some(())
    });
    assert_eq!(log.publisher(&name).unwrap().position(), Some(7));
}

#[test]
fn records_deleted_from_the_start_of_a_compacted_topic_are_noticed_once() {
    let Some((log, settings, name)) = real() else { return };
    log.prepare().unwrap();
    let records: Vec<_> = (0..10).map(|_| record("a", 1)).collect();
    let mut publisher = log.publisher(&name).unwrap();
    publisher.publish(&records, 10).unwrap();
    assert_eq!(log.start_offsets(PATIENCE).unwrap().values().sum::<u64>(), 0);
    let partition = partition_of_key(b"a", 3);
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&name, partition as i32, Offset::Offset(5)).unwrap();
    // Brokers delete records on request only if the policy includes `delete`.
    configure(&settings, "delete", "1048576");
    let deleted = administer(&settings, async |admin| admin.delete_records(&before, &options()).await).unwrap();
    assert!(deleted.elements().iter().all(|element| element.error().is_ok()), "{deleted:?}");
    configure(&settings, "compact", "1048576");
    until("it shows", || (log.start_offsets(PATIENCE).unwrap()[&partition] == 5).then_some(()));
    let found = until("the publisher notices", || publisher.check().err());
    assert!(found.to_string().contains("deleted from the start"), "{found}");
    let open = || -> Box<dyn Publisher> { log.publisher(&name).unwrap() };
    assert!(open().may_lose_records(), "until something is published");
    let mut publisher = open();
    assert_eq!((publisher.may_lose_records(), publisher.position()), (true, Some(10)));
    publisher.publish(&records, 11).unwrap();
    assert!(!publisher.may_lose_records() && !open().may_lose_records());
}

#[test]
fn a_reader_continues_in_a_topic_that_was_created_anew_and_reports_its_positions_there() {
    let Some((log, settings, name)) = real() else { return };
    log.prepare().unwrap();
    let mut reader = log.reader(&Positions::new()).unwrap();
    let mut read_to_the_end = || {
        until("it stands at the end", || {
            reader.poll(Duration::from_millis(20), &mut |_| {}).unwrap();
            (reader.positions() == log.end_offsets(PATIENCE).ok()?).then_some(())
        });
    };
    publish(log.as_ref(), &name, &[record("a", 1), record("a", 1), record("a", 1)], 1);
    read_to_the_end();
    let deleted = administer(&settings, async |admin| admin.delete_topics(&[&name], &options()).await);
    assert!(deleted.unwrap().iter().all(Result::is_ok));
    until("it is gone", || log.end_offsets(PATIENCE).err());
    until("it is created again", || log.prepare().ok());
    publish(log.as_ref(), &name, &[record("a", 1)], 2);
    read_to_the_end();
    publish(log.as_ref(), &name, &[record("a", 1)], 3);
    read_to_the_end();
}
