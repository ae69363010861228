//! Troubles by changes of the topic.

use std::time::{Duration, Instant};

use account_events::AccountId;
use event_log::partition_of_key;
use test_harness::wait_until;

use super::Operator;
use crate::cluster::{Instance, count};
use crate::kafka::PARTITIONS;
use crate::kafka::admin::Admin;
use crate::random::Random;
use crate::resync::publish_again;

const CODECS: [&str; 4] = ["zstd", "lz4", "snappy", "gzip"];

/// More partitions than this are not added.
const MAX_PARTITIONS: u32 = 5;

/// Less than a batch of [`BACKLOG`], more than any event.
const SMALL_BATCH_BYTES: &str = "16384";

/// Events that wait in the outbox before they are published in small batches: with some 390 bytes an event each of
/// [`MAX_PARTITIONS`] has more than [`SMALL_BATCH_BYTES`].
const BACKLOG: i64 = 500;

impl Operator<'_> {
    pub(super) fn compress(&mut self, random: &mut Random) -> Duration {
        let codec = CODECS[random.below(CODECS.len())];
        eprintln!("  {codec}");
        self.alter_topic("--add-config", &format!("compression.type={codec}"));
        let away = self.endure(random);
        self.alter_topic("--delete-config", "compression.type");
        self.go_on(Instant::now());
        away
    }

    /// Adds a partition, and sees that every view reads what is in it.
    pub(super) fn add_partition(&mut self) -> Duration {
        let admin = self.admin();
        let before = admin.partitions();
        if before >= MAX_PARTITIONS {
            eprintln!("  there are {before} already");
            return Duration::ZERO;
        }
        let begun = Instant::now();
        admin.add_partition(before + 1);
        let accounts = self.cluster.accounts[0].http().expect("it is there");
        let place = wait_until("an account is in the new partition", || {
            let place = self.writer.create_account_at(&accounts);
            let key = self.writer.accounts[place].id.to_string();
            (partition_of_key(key.as_bytes(), before + 1) == before).then_some(place)
        });
        self.create_cards(place);
        self.go_on(begun)
    }

    /// The topic takes only small batches when a backlog is published that has gathered without the broker.
    pub(super) fn limit_batches(&mut self) -> Duration {
        self.alter_topic("--add-config", &format!("max.message.bytes={SMALL_BATCH_BYTES}"));
        self.servers.tell(&["pause", "kafka-1"]);
        wait_until("a backlog gathers", || {
            (count(&self.cluster.database, "SELECT count(*) FROM account.outbox") >= BACKLOG).then_some(())
        });
        self.servers.tell(&["resume", "kafka-1"]);
        let away = self.went_on_since(Instant::now());
        self.alter_topic("--delete-config", "max.message.bytes");
        self.go_on(Instant::now());
        away
    }

    /// Deletes the topic. The brokers would create another one for whoever asks for it. The services recreate the topic, with
    /// their settings, and publish the state of every account.
    pub(super) fn delete_topic(&mut self) -> Duration {
        let admin = self.admin();
        assert_eq!(admin.broker_setting("auto.create.topics.enable"), "true", "as brokers have it by default");
        let begun = Instant::now();
        admin.delete_topic();
        let away = self.go_on(begun);
        // The state of every account comes before what was created later.
        let place = self.probe();
        self.wait_until_published(self.writer.accounts[place].id);
        wait_until("the topic is compacted", || (admin.topic_setting("cleanup.policy") == "compact").then_some(()));
        assert_eq!(admin.partitions(), PARTITIONS);
        away
    }

    /// A card instance that starts when a partition has lost its records still knows every account.
    pub(super) fn delete_records(&mut self, cards: &Instance, random: &mut Random) -> Duration {
        let admin = self.admin();
        // Brokers refuse to delete records from a topic that is compacted only.
        self.alter_topic("--add-config", "cleanup.policy=[compact,delete]");
        admin.delete_records(random.below(admin.partitions() as usize) as u32);
        self.alter_topic("--add-config", "cleanup.policy=compact");
        let away = self.stop(cards, libc::SIGTERM);
        publish_again(&self.cluster.database);
        away
    }

    fn wait_until_published(&self, id: AccountId) {
        let sql = format!("SELECT count(*) FROM account.outbox WHERE account_id = '{id}'");
        wait_until("it is published", || (count(&self.cluster.database, &sql) == 0).then_some(()));
    }

    fn alter_topic(&self, change: &str, setting: &str) {
        let topic = ["--entity-type", "topics", "--entity-name", &self.cluster.topic];
        self.servers.tell(&[&["kafka", "configs", "--alter"][..], &topic, &[change, setting]].concat());
    }

    fn admin(&self) -> Admin {
        Admin::of(&self.cluster.brokers, &self.cluster.topic)
    }
}
