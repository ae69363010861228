//! What is true once all has settled: nothing acknowledged is lost, the topic tells every version once and in order, and
//! every view answers by the account table.

use std::collections::BTreeMap;
use std::time::Duration;

use account_events::{AccountEvent, AccountId, AccountStatus, Version};
use event_log::{Headers, RecordRef};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use test_harness::{DEADLINE, Http, wait_until, with_postgres};
use uuid::Uuid;

use super::{Cluster, Instance, Writer};
use crate::events::{Seen, last_versions};
use crate::random::Random;
use crate::requests::{create_card, error};

/// Accounts that each card instance is asked about at the end.
const SAMPLES: usize = 40;

pub(crate) fn count(database: &str, sql: &str) -> i64 {
    with_postgres(database, async |client| Ok(client.query_one(sql, &[]).await?.get(0)))
}

/// Waits until all has been published, read and closed.
pub(crate) fn settle(cluster: &Cluster) {
    let database = &cluster.database;
    cluster.there().for_each(Instance::wait_until_ready);
    wait_until("the outbox is empty", || (count(database, "SELECT count(*) FROM account.outbox") == 0).then_some(()));
    let accounts = count(database, "SELECT count(*) FROM account.accounts");
    for instance in cluster.cards.iter().filter(|instance| instance.http().is_some()) {
        wait_until("the view has every account", || {
            (instance.readyz()["view"]["accounts"].as_i64() == Some(accounts)).then_some(())
        });
    }
    let live = "SELECT count(*) FROM card.cards JOIN account.accounts ON cards.account_id = accounts.id
                WHERE NOT cards.deleted AND accounts.status = 'DELETED'";
    wait_until("no deleted account has a live card", || (count(database, live) == 0).then_some(()));
}

/// What the database holds at the end.
pub(crate) struct Tables {
    pub(crate) accounts: BTreeMap<AccountId, (AccountStatus, Version)>,
    pub(crate) cards: BTreeMap<Uuid, (AccountId, bool)>,
}

impl Tables {
    pub(crate) fn read(database: &str) -> Self {
        with_postgres(database, async |client| {
            let accounts = client.query("SELECT id, status, version FROM account.accounts", &[]).await?;
            let cards = client.query("SELECT id, account_id, deleted FROM card.cards", &[]).await?;
            let status = |text: &str| AccountStatus::parse(text).expect("one of the three");
            let version = |version: i64| Version::try_from(version).expect("a version");
            Ok(Tables {
                accounts: accounts
                    .iter()
                    .map(|row| (AccountId(row.get(0)), (status(row.get(1)), version(row.get(2)))))
                    .collect(),
                cards: cards.iter().map(|row| (row.get(0), (AccountId(row.get(1)), row.get(2)))).collect(),
            })
        })
    }

    /// Everything acknowledged is there, and nothing else but what may have been done without an answer.
    pub(crate) fn check(&self, writers: &[Writer]) {
        let mut strangers = self.accounts.clone();
        for account in writers.iter().flat_map(|writer| &writer.accounts) {
            let found = strangers.remove(&account.id);
            let found = found.unwrap_or_else(|| panic!("{account:?} was acknowledged and is lost"));
            let perhaps = account.perhaps.map(|status| (status, account.version + 1));
            assert!(found == (account.status, account.version) || Some(found) == perhaps, "{account:?}: {found:?}");
        }
        let unknown: usize = writers.iter().map(|writer| writer.unknown_accounts).sum();
        assert!(strangers.len() <= unknown, "{unknown} creations were not answered: {strangers:?}");
        assert!(strangers.values().all(|found| *found == (AccountStatus::Active, 1)), "{strangers:?}");
        for card in writers.iter().flat_map(|writer| &writer.cards) {
            let found = self.cards.get(&card.id).unwrap_or_else(|| panic!("{card:?} was acknowledged and is lost"));
            let closed = self.accounts[&card.account].0 == AccountStatus::Deleted;
            let may_be = card.deleted || card.perhaps_deleted || closed;
            let must_be = card.deleted || closed;
            assert!(found.0 == card.account && (found.1 || !must_be) && (!found.1 || may_be), "{card:?}: {found:?}");
        }
    }

    /// The topic tells of every version of every account, in order, and nothing twice.
    pub(crate) fn check_topic(&self, events: &[Seen]) {
        assert_eq!(last_versions(events).len(), self.accounts.len(), "every account has its events");
        let mut told = BTreeMap::<_, Vec<_>>::new();
        for Seen { event, .. } in events {
            told.entry(event.account_id).or_default().push((event.version.expect("checked above"), event.status));
        }
        for (id, (status, version)) in &self.accounts {
            let versions: Vec<_> = told[id].iter().map(|(version, _)| *version).collect();
            assert_eq!(versions, (1..=*version).collect::<Vec<_>>(), "{id}");
            assert_eq!(told[id].last(), Some(&(*version, *status)), "{id}");
        }
    }

    /// Each instance answers by each account's status.
    pub(crate) fn check_views(&self, cluster: &Cluster, random: &mut Random) {
        let accounts: Vec<_> = self.accounts.iter().collect();
        for instance in cluster.cards.iter().filter(|instance| instance.http().is_some()) {
            let view = &instance.readyz()["view"];
            assert_eq!(
                (view["accounts"].as_u64(), view["quarantined"].as_u64()),
                (Some(accounts.len() as u64), Some(0))
            );
            // Connections that rested for long are closed.
            let http = Http::new(instance.http().expect("it is there").address());
            for _ in 0..SAMPLES {
                let (id, (status, _)) = random.pick(&accounts).expect("there are accounts");
                let expected = match status {
                    AccountStatus::Active => (201, ""),
                    AccountStatus::Blocked => (403, "cannot create card for inactive account"),
                    AccountStatus::Deleted => (403, "cannot create card for deleted account"),
                };
                let answer = create_card(&http, **id);
                assert_eq!((answer.status, error(&answer)), expected, "{id}");
            }
        }
    }
}

/// Which records a consumer is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// What foreign consumers see.
    Committed,
    /// All that the brokers keep, records of transactions that were aborted too: what compaction goes by.
    Uncommitted,
}

/// The topic, each partition in order.
pub(crate) fn read_topic(cluster: &Cluster, isolation: Isolation) -> Vec<Seen> {
    let topic = &cluster.topic;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &cluster.brokers).set("group.id", "foreign").set("enable.auto.commit", "false");
    let isolation = if isolation == Isolation::Committed { "read_committed" } else { "read_uncommitted" };
    let consumer: BaseConsumer = config.set("isolation.level", isolation).create().expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).expect("the topic is there");
    let (mut assigned, mut ends) = (TopicPartitionList::new(), BTreeMap::new());
    for partition in metadata.topics()[0].partitions() {
        let (_, end) = consumer.fetch_watermarks(topic, partition.id(), DEADLINE).expect("where it ends");
        ends.insert(partition.id(), end);
        assigned.add_partition_offset(topic, partition.id(), Offset::Beginning).expect("a partition");
    }
    consumer.assign(&assigned).expect("the partitions");
    let mut seen = Vec::new();
    wait_until("all of the topic is read", || {
        while let Some(message) = consumer.poll(Duration::from_millis(20)) {
            let message = message.expect("the topic can be read");
            let record = RecordRef {
                partition: message.partition() as u32,
                offset: message.offset() as u64,
                key: message.key(),
                value: message.payload(),
                headers: message.headers().map_or(Headers::Empty, Headers::Kafka),
            };
            let event = AccountEvent::decode(record).expect("an account event");
            seen.push(Seen { partition: record.partition, key: record.key.map(<[u8]>::to_vec), event });
        }
        // Behind the markers of transactions too.
        let reached = consumer.position().expect("positions");
        let is_read = |(partition, end): (&i32, &i64)| {
            let reached = reached.find_partition(topic, *partition).map(|element| element.offset());
            *end == 0 || matches!(reached, Some(Offset::Offset(reached)) if reached >= *end)
        };
        ends.iter().all(is_read).then_some(())
    });
    seen
}
