//! A transaction that the coordinator has ended while one partition still counts it as open (KAFKA-20734).
//!
//! The test provokes it: over a connection of its own it commits an offset in a transaction that the coordinator does not know.
//! No client does that.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use event_log::Record;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

use super::places::{PATIENCE, Place, RealKafka};

const INIT_PRODUCER_ID: i16 = 22;
const TXN_OFFSET_COMMIT: i16 = 28;
/// The coordinator's answer while it still ends the last transaction.
const CONCURRENT_TRANSACTIONS: i16 = 51;

#[test]
fn a_position_in_a_transaction_that_was_left_open_counts_and_is_told_of() {
    let Some(place) = RealKafka::new() else { return };
    let _unverified = Unverified::new(&place.settings().brokers);
    // It may be either producer of a publisher.
    for producer in ["", "-2"] {
        let place = RealKafka::new().unwrap();
        let (log, name) = (place.open(), place.settings().topic);
        log.publisher(&name).unwrap().publish(&[record("1")], 1).unwrap();
        let mut connection = Connection::open(&place.settings().brokers);
        // The publisher is named after the topic, and its group has the topic's name too.
        let group = format!("{name}-{name}");
        let (id, epoch) = connection.init_producer(&format!("{group}{producer}"));
        // The position 2, with one record that the topic had before.
        connection.commit_offset((&format!("{group}{producer}"), id, epoch), &group, (&name, 2, "1"));

        // Also if the first publisher that reports it is dropped before the report is recorded.
        for _ in 0..2 {
            let publisher = log.publisher(&name).unwrap();
            assert_eq!((publisher.position(), publisher.may_lose_records()), (Some(2), true));
        }
        let mut publisher = log.publisher(&name).unwrap();
        publisher.publish(&[record("3")], 3).unwrap();
        assert!(!publisher.may_lose_records());
        let publisher = log.publisher(&name).unwrap();
        assert_eq!((publisher.position(), publisher.may_lose_records()), (Some(3), false));
    }
}

fn record(value: &str) -> Record {
    Record { key: Some(b"k".to_vec()), value: Some(value.into()), ..Record::default() }
}

/// While it exists, the broker accepts a request of a transaction without asking the coordinator.
struct Unverified(AdminClient<DefaultClientContext>);

impl Unverified {
    fn new(brokers: &str) -> Unverified {
        let unverified = Unverified(ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap());
        unverified.alter(|config| config.set("transaction.partition.verification.enable", "false"));
        unverified
    }

    fn alter(&self, settings: impl FnOnce(AlterConfig<'static>) -> AlterConfig<'static>) {
        let config = settings(AlterConfig::new(ResourceSpecifier::Broker(1)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let altered = runtime.block_on(self.0.alter_configs([&config], &AdminOptions::new())).unwrap();
        assert!(altered.iter().all(Result::is_ok), "{altered:?}");
    }
}

impl Drop for Unverified {
    fn drop(&mut self) {
        self.alter(|config| config);
    }
}

/// Speaks Kafka's protocol, in the last versions of its requests without tagged fields.
struct Connection(TcpStream);

impl Connection {
    fn open(brokers: &str) -> Connection {
        Connection(TcpStream::connect(brokers).unwrap())
    }

    /// The id and the epoch of the producer with this transactional id.
    fn init_producer(&mut self, transactional_id: &str) -> (i64, i16) {
        let mut body = text(transactional_id);
        body.extend(15_000_i32.to_be_bytes());
        let begun = Instant::now();
        loop {
            let answer = self.ask(INIT_PRODUCER_ID, 1, &body);
            // After the throttle time (4 bytes).
            let (error, answer) = answer[4..].split_first_chunk().unwrap();
            match i16::from_be_bytes(*error) {
                CONCURRENT_TRANSACTIONS if begun.elapsed() < PATIENCE => {}
                error => {
                    assert_eq!(error, 0);
                    let (id, epoch) = answer.split_first_chunk().unwrap();
                    return (i64::from_be_bytes(*id), i16::from_be_bytes(epoch.try_into().unwrap()));
                }
            }
        }
    }

    /// Commits an offset in the topic's first partition, in the transaction of `producer`.
    fn commit_offset(&mut self, producer: (&str, i64, i16), group: &str, (topic, offset, metadata): (&str, i64, &str)) {
        let (transactional_id, id, epoch) = producer;
        let (one, first, no_epoch) = (1_i32.to_be_bytes(), 0_i32.to_be_bytes(), (-1_i32).to_be_bytes());
        let body = [
            text(transactional_id),
            text(group),
            id.to_be_bytes().to_vec(),
            epoch.to_be_bytes().to_vec(),
            one.to_vec(),
            text(topic),
            one.to_vec(),
            first.to_vec(),
            offset.to_be_bytes().to_vec(),
            no_epoch.to_vec(),
            text(metadata),
        ];
        let answer = self.ask(TXN_OFFSET_COMMIT, 2, &body.concat());
        assert_eq!(answer[answer.len() - 2..], [0, 0], "the partition's error");
    }

    fn ask(&mut self, key: i16, version: i16, body: &[u8]) -> Vec<u8> {
        let header = [&key.to_be_bytes()[..], &version.to_be_bytes(), &7_i32.to_be_bytes(), &text("test")].concat();
        let length = (header.len() + body.len()) as i32;
        self.0.write_all(&[&length.to_be_bytes(), &header[..], body].concat()).unwrap();
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut answer = vec![0; i32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut answer).unwrap();
        // After the correlation id.
        answer.split_off(4)
    }
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as i16).to_be_bytes(), value.as_bytes()].concat()
}
