//! Two account and three card instances on PostgreSQL and Apache Kafka, under load, while one of everything is killed,
//! paused and brought back in turn, the servers too; the database hangs up on all, and an operator has every account
//! published again.
//!
//! It needs real servers, which it starts itself. Without `TANDEM_TEST_SERVERS` (`dev/servers env` prints it) there is
//! nothing to see here.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Writer, settle, under_load};
use crate::kafka::Isolation;
use crate::operator::{ACKNOWLEDGED, Operator, Trouble};
use crate::random::{Random, seed};
use crate::servers::Servers;

/// Threads that write at the same time.
const WRITERS: usize = 8;

/// How many times [`ACKNOWLEDGED`] requests warm up the broker before the first trouble. A broker that has just started still compiles
/// most of its code, and the bounds are for one that runs.
const WARM_UPS: usize = 20;

/// Within what publishing moves to the other instance: the bound that was set.
const MOVED: Duration = Duration::from_secs(5);

/// Each once, but the pause twice, so that publishing also moves back to an instance that once lost it.
const TROUBLES: [Trouble; 12] = [
    Trouble::KillPublisher,
    Trouble::PausePublisher,
    Trouble::PausePublisher,
    Trouble::PauseOtherAccounts,
    Trouble::KillCards,
    Trouble::PauseCards,
    Trouble::LoseConnections,
    Trouble::KillDatabase,
    Trouble::PauseDatabase,
    Trouble::KillBroker,
    Trouble::PauseBroker,
    Trouble::Resync,
];

#[test]
fn instances_on_postgres_and_kafka_survive_each_others_ends() {
    let Some(servers) = Servers::start("chaos", &["kafka", "postgres"]) else { return };
    let (mut random, started) = (Random::new(seed()), Instant::now());
    let cluster = Cluster::start("chaos", (servers.brokers(), servers.postgres()), 2, 3);
    eprintln!("{:?}: all are ready", started.elapsed());
    let mut writers: Vec<_> = (0..WRITERS).map(|_| Writer::new(random.next())).collect();
    let operator = Writer::new(random.next());
    let (operator, acknowledged) = under_load(&cluster, &mut writers, Duration::ZERO, |load| {
        let (cluster, servers, within) = (&cluster, &servers, Vec::new());
        let mut operator = Operator { cluster, servers, writer: operator, load, move_bound: MOVED, within };
        // In steps: the deadline is for progress, and a busy machine takes its time for all of them.
        (0..WARM_UPS).for_each(|_| load.wait_for(ACKNOWLEDGED));
        let mut troubles = TROUBLES;
        random.shuffle(&mut troubles);
        for trouble in troubles {
            load.wait_for(ACKNOWLEDGED);
            eprintln!("{:?}: {trouble:?} begins", started.elapsed());
            let (begun, away) = (Instant::now(), operator.make(trouble, &mut random));
            operator.probe();
            eprintln!(
                "{:?}: {trouble:?}, {away:?} until what could went on, {:?} in all",
                started.elapsed(),
                begun.elapsed()
            );
        }
        load.wait_for(ACKNOWLEDGED);
        (operator.writer, load.acknowledged())
    });
    eprintln!("{:?}: {acknowledged} requests acknowledged", started.elapsed());
    writers.push(operator);
    settle(&cluster);
    eprintln!("{:?}: settled", started.elapsed());
    let tables = cluster.tables();
    tables.check(&writers);
    tables.check_topic_with_repeats(&cluster.read_topic(Isolation::Committed));
    tables.check_compacted(&cluster.read_topic(Isolation::Uncommitted));
    tables.check_views(&cluster, &mut random);
    eprintln!("{:?}: {} accounts, {} cards", started.elapsed(), tables.accounts.len(), tables.cards.len());
}
