//! What only the Kafka log has: outages of Kafka, and warnings about the topic.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::places::{MockKafka, PATIENCE, Place, RealKafka};
use event_log::{EventLog, GroupReader, KafkaLog, KafkaSettings, LogError, Positions, Record};

fn record(value: &str) -> Record {
    Record { key: Some(b"k".to_vec()), value: Some(value.into()), ..Record::default() }
}

#[test]
fn with_kafka_down_the_log_opens_and_says_unavailable_until_it_is_back() {
    let place = MockKafka::new();
    place.cluster().broker_down(-1).unwrap();
    let log = KafkaLog::open(place.settings()).unwrap();
    let begun = Instant::now();
    assert!(matches!(log.end_offsets(Duration::from_millis(200)), Err(LogError::Unavailable(_))));
    assert!(begun.elapsed() < Duration::from_secs(5));

    place.cluster().broker_up(-1).unwrap();
    let mut publisher = log.publisher("relay").unwrap();
    let mut reader = log.reader(&Positions::new()).unwrap();
    publisher.publish(&[record("1")], 1).unwrap();
    let mut read = Vec::new();
    assert_eq!(reader.poll(PATIENCE, &mut |record| read.push(record.to_record())).unwrap(), 1);

    place.cluster().broker_down(-1).unwrap();
    let begun = Instant::now();
    let failed = publisher.publish(&[record("2")], 2);
    assert!(matches!(failed, Err(LogError::Unavailable(_))), "{failed:?}");
    // Ten seconds for the batch, two to abort it.
    assert!(begun.elapsed() < Duration::from_secs(14), "{:?}", begun.elapsed());
    assert!(matches!(publisher.publish(&[record("2")], 2), Err(LogError::Unavailable(_))), "it is spent");
    assert_eq!(reader.poll(Duration::from_millis(300), &mut |_| panic!("a record from nowhere")).unwrap(), 0);
    drop(publisher);

    place.cluster().broker_up(-1).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut publisher = loop {
        match log.publisher("relay") {
            Ok(publisher) => break publisher,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    publisher.publish(&[record("3")], 2).unwrap();
    // The same reader continues.
    while read.last() != Some(&record("3")) {
        assert!(Instant::now() < deadline, "{read:?}");
        reader.poll(Duration::from_millis(50), &mut |record| read.push(record.to_record())).unwrap();
    }
}

#[test]
fn a_broker_without_the_admin_interface_is_a_warning() {
    let place = MockKafka::new();
    // The client waits for the whole timeout.
    let log = KafkaLog::open(place.settings()).unwrap();
    log.prepare().unwrap();
    let [warning] = log.topic_problems(Duration::from_secs(1)).try_into().unwrap();
    assert!(warning.contains("cannot be read") && warning.contains("vanish") && !warning.contains('\n'), "{warning}");
}

#[test]
fn a_missing_topic_is_made_compacted_and_left_alone_after_that() {
    // `Place` has created the topic and seen no warning. This is the second check.
    let Some(place) = RealKafka::new() else { return };
    let log = KafkaLog::open(place.settings()).unwrap();
    log.prepare().unwrap();
    assert_eq!(log.topic_problems(PATIENCE), [""; 0]);
    assert_eq!(log.end_offsets(PATIENCE).unwrap().len(), 3);
}

#[test]
fn a_topic_that_deletes_old_records_is_warned_of() {
    let Some(place) = RealKafka::new() else { return };
    let topic = format!("{}-deletes", place.settings().topic);
    let settings = KafkaSettings { topic: topic.clone(), ..place.settings() };
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &settings.brokers).create().unwrap();
    let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "delete");
    let made = admin.create_topics([&new], &AdminOptions::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(made).unwrap(), [Ok(topic.clone())]);

    let log = KafkaLog::open(settings).unwrap();
    log.prepare().unwrap();
    let [warning] = log.topic_problems(PATIENCE).try_into().unwrap();
    assert!(warning.contains(&topic) && warning.contains("cleanup.policy=delete"), "{warning}");
    assert!(warning.contains("vanish") && !warning.contains('\n'), "{warning}");
    assert_eq!(log.end_offsets(PATIENCE).unwrap().len(), 1, "it is left as it is");
}

#[test]
fn a_keyless_record_on_a_compacted_topic_is_refused() {
    let Some(place) = RealKafka::new() else { return };
    let log = place.open();
    let keyless = Record { key: None, value: Some(b"v".to_vec()), ..Record::default() };
    let refused = log.publisher("relay-keyless").unwrap().publish(&[keyless], 1);
    assert!(matches!(refused, Err(LogError::Refused(_))), "{refused:?}");
}

#[test]
fn a_failed_batch_moves_no_position() {
    let Some(place) = RealKafka::new() else { return };
    let log = place.open();
    let name = place.settings().topic;
    log.publisher(&name).unwrap().publish(&[record("1")], 1).unwrap();
    let keyless = Record { key: None, value: Some(b"v".to_vec()), ..Record::default() };
    assert!(log.publisher(&name).unwrap().publish(&[record("2"), keyless], 2).is_err());
    let mut publisher = log.publisher(&name).unwrap();
    assert_eq!(publisher.position(), Some(1));
    publisher.publish(&[record("2")], 2).unwrap();
    assert_eq!(log.publisher(&name).unwrap().position(), Some(2));
}

#[test]
fn what_is_appended_is_read_at_once_and_counts_once_it_is_committed() {
    let Some(place) = RealKafka::new() else { return };
    let log = place.open();
    let name = place.settings().topic;
    let mut publisher = log.publisher(&name).unwrap();
    let mut reader = log.reader(&Positions::new()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut read = 0;
    let mut read_to = |target: usize| {
        while read < target {
            assert!(Instant::now() < deadline, "{read} records in {PATIENCE:?}");
            read += reader.poll(Duration::from_millis(50), &mut |_| {}).unwrap();
        }
    };
    assert_eq!(publisher.commit_due(), None);
    publisher.append(&[record("1")], 1).unwrap();
    read_to(1);
    // The second batch may have committed the transaction.
    publisher.append(&[record("2")], 2).unwrap();
    read_to(2);
    publisher.commit().unwrap();
    assert_eq!((publisher.position(), publisher.commit_due()), (Some(2), None));

    publisher.append(&[record("3")], 3).unwrap();
    read_to(3);
    assert_eq!((publisher.position(), publisher.commit_due().is_some()), (Some(2), true));
    assert_eq!(log.publisher(&name).unwrap().position(), Some(2), "whoever takes over publishes it again");
    assert!(matches!(publisher.commit(), Err(LogError::Fenced(_))));
}

#[test]
fn a_position_in_a_topic_that_is_shorter_than_it_was_counts_no_more() {
    let place = MockKafka::new();
    let (log, settings) = (place.open(), place.settings());
    log.publisher("another").unwrap().publish(&[record("1"), record("2")], 2).unwrap();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &settings.brokers).set("group.id", format!("relay-{}", settings.topic));
    let consumer: BaseConsumer = config.create().unwrap();
    // As a publisher commits it: the sums of the partitions' ends and starts, and its note.
    for (total, position) in [("2", Some(7)), ("3", None), ("", Some(7)), ("2 0 a note", Some(7)), ("3 0 a note", None)]
    {
        let mut offsets = TopicPartitionList::new();
        let mut offset = offsets.add_partition(&settings.topic, 0);
        offset.set_offset(Offset::Offset(7)).unwrap();
        offset.set_metadata(total);
        consumer.commit(&offsets, CommitMode::Sync).unwrap();
        let committed = log.committed("relay", PATIENCE).unwrap();
        assert_eq!(committed.as_ref().map(|committed| committed.position), position, "{total}");
        assert_eq!(log.publisher("relay").unwrap().position(), position, "{total}");
        let note = committed.map(|committed| committed.note).unwrap_or_default();
        assert_eq!(note == "a note", total == "2 0 a note");
    }
}

/// The group's position in each partition, as an operator's tools show it.
fn committed(settings: &KafkaSettings, group: &str) -> Positions {
    let mut config = ClientConfig::new();
    let consumer: BaseConsumer =
        config.set("bootstrap.servers", &settings.brokers).set("group.id", group).create().unwrap();
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(&settings.topic, 0, 2);
    let position = |offset| if let Offset::Offset(offset) = offset { offset as u64 } else { 0 };
    let answer = consumer.committed_offsets(asked, PATIENCE).unwrap();
    answer.elements().iter().map(|element| (element.partition() as u32, position(element.offset()))).collect()
}

#[test]
fn a_group_that_has_committed_has_no_lag_and_one_that_has_not_keeps_its_place() {
    let Some(place) = RealKafka::new() else { return };
    let (log, settings) = (place.open(), place.settings());
    // Not the publisher's name: its position is stored as a group's.
    let group = format!("{}-closers", settings.topic);
    let mut publisher = log.publisher(&settings.topic).unwrap();
    let mut member = log.group_reader(&group).unwrap();
    let mut position = 0;
    let mut publish = || {
        for _ in 0..5 {
            position += 1;
            publisher.publish(&[record("v")], position).unwrap();
        }
    };
    let deadline = Instant::now() + PATIENCE;
    let mut read = 0;
    let mut read_to = |member: &mut dyn GroupReader, target: usize| {
        while read < target {
            assert!(Instant::now() < deadline, "{read} records in {PATIENCE:?}");
            read += member.poll(Duration::from_millis(50), &mut |_| {}).unwrap();
        }
    };
    publish();
    read_to(member.as_mut(), 5);
    member.commit().unwrap();
    // Whether or not the last marker had been written by then.
    let ends = log.end_offsets(PATIENCE).unwrap();
    while committed(&settings, &group) != ends {
        assert!(Instant::now() < deadline, "{:?} of {ends:?}", committed(&settings, &group));
        assert_eq!(member.poll(Duration::from_millis(50), &mut |_| {}).unwrap(), 0);
    }

    publish();
    read_to(member.as_mut(), 10);
    for _ in 0..10 {
        assert_eq!(member.poll(Duration::from_millis(50), &mut |_| {}).unwrap(), 0);
    }
    assert_eq!(committed(&settings, &group), ends, "nobody has said that they have taken effect");
    member.commit().unwrap();
    let ends = log.end_offsets(PATIENCE).unwrap();
    assert_eq!(committed(&settings, &group), ends, "the polls before have gone behind the last marker");
}

#[test]
fn brokers_that_let_nobody_in_are_unavailable_and_say_why() {
    let Some(place) = RealKafka::secured() else { return };
    let other_ca = std::env::var("TANDEM_TEST_KAFKA_TLS_OTHER_CA").unwrap();
    for (name, value, reason) in [
        ("sasl.password", "not it", "SASL authentication error: Authentication failed"),
        ("ssl.ca.location", other_ca.as_str(), "SSL handshake failed"),
    ] {
        let mut settings = place.settings();
        settings.extra.iter_mut().filter(|(own, _)| own == name).for_each(|(_, own)| *own = value.to_owned());
        let log = KafkaLog::open(settings).unwrap();
        let text = match log.end_offsets(Duration::from_secs(2)) {
            Err(LogError::Unavailable(text)) => text,
            other => panic!("{name}: {other:?}"),
        };
        assert!(text.contains(reason) && !text.contains("not it"), "{name}: {text}");
        // Publishers and readers prepare the topic first.
        assert!(log.prepare().is_err_and(|error| error.to_string().contains(reason)), "{name}");
    }
}
