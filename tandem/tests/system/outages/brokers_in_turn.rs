//! Three brokers, of which each in turn is killed, missed for a while and started again, under load: no request fails,
//! publishing goes on with the two that are left, and nothing is lost or told twice.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use test_harness::{DEADLINE, postgres_database, wait_until};

use crate::cluster::{Cluster, Writer, count, settle, under_load};
use crate::kafka::Isolation;
use crate::random::{Random, seed};
use crate::servers::{self, Servers, kafka_client};

const BROKERS: usize = 3;

/// The pause of a writer between two requests.
const PACE: Duration = Duration::from_millis(20);

/// Requests acknowledged between two steps.
const REQUESTS: usize = 200;

/// How long one question to the brokers may take.
const QUESTION: Duration = Duration::from_secs(2);

#[test]
fn with_each_of_three_brokers_away_in_turn_no_request_fails_and_publishing_goes_on() {
    let Some((_, server)) = servers::shared() else { return };
    let Some(servers) = Servers::start("brokers", &["kafka3"]) else { return };
    let (mut random, started) = (Random::new(seed()), Instant::now());
    let cluster = Cluster::start("brokers", (servers.brokers(), postgres_database(&server)), 2, 2);
    let mut writers: Vec<_> = (0..3).map(|_| Writer::new(random.next())).collect();
    under_load(&cluster, &mut writers, PACE, |load| {
        load.wait_for(REQUESTS);
        for broker in 1..=BROKERS {
            let name = format!("kafka-{broker}");
            wait_until_in_sync(&cluster.brokers);
            let killed = Instant::now();
            servers.tell(&["stop", &name]);
            // Counted from when what was on its way is through or given up: what is made now must get there.
            wait_for_publishing(&cluster);
            let published = killed.elapsed();
            load.wait_for(REQUESTS);
            wait_for_publishing(&cluster);
            servers.tell(&["start", &name]);
            eprintln!(
                "{:?}: {name} away for {:?}, published again after {published:?}",
                started.elapsed(),
                killed.elapsed()
            );
        }
        wait_until_in_sync(&cluster.brokers);
        load.wait_for(REQUESTS);
        eprintln!("{:?}: {} requests acknowledged", started.elapsed(), load.acknowledged());
    });
    writers.iter().for_each(Writer::check_none_failed);

    settle(&cluster);
    let tables = cluster.tables();
    tables.check(&writers);
    tables.check_topic(&cluster.read_topic(Isolation::Committed));
    tables.check_views(&cluster, &mut random);
}

/// Waits until all that is in the outbox now is published.
fn wait_for_publishing(cluster: &Cluster) {
    let last = count(&cluster.database, "SELECT coalesce(max(sequence), 0) FROM account.outbox");
    let sql = format!("SELECT count(*) FROM account.outbox WHERE sequence <= {last}");
    wait_until("what waits is published", || (count(&cluster.database, &sql) == 0).then_some(()));
}

/// Waits until every partition, Kafka's own included, is on all brokers.
fn wait_until_in_sync(brokers: &str) {
    let client = kafka_client(brokers);
    let started = Instant::now();
    // Longer than other things may take: a broker starts meanwhile.
    while started.elapsed() < 2 * DEADLINE {
        let in_sync = client.fetch_metadata(None, QUESTION).is_ok_and(|metadata| {
            let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            metadata.topics().len() > 1 && partitions.all(|partition| partition.isr().len() == BROKERS)
        });
        if in_sync {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    panic!("the brokers are not in sync again");
}
