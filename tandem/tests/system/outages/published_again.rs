//! `tandem resync` under load, with two account instances: every account is published again, also if the one that publishes
//! is killed meanwhile, and no version lands behind a newer one (ARCHITECTURE.md A3).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use account_events::AccountId;
use tempfile::TempDir;
use test_harness::postgres_database;

use crate::cluster::{Cluster, Load, Writer, settle, under_load};
use crate::events::{Seen, last_versions};
use crate::kafka::Isolation;
use crate::random::{Random, seed};
use crate::resync::resync;
use crate::servers;

/// More than two pages of states.
const ACCOUNTS: usize = 2_400;

/// The pause of a writer between two requests.
const PACE: Duration = Duration::from_millis(2);

#[test]
fn every_account_is_published_again_under_load_whoever_publishes() {
    let Some((brokers, server)) = servers::shared() else { return };
    let mut random = Random::new(seed());
    let cluster = Cluster::start("again", (brokers, postgres_database(&server)), 2, 1);
    let mut writers: Vec<_> = (0..4).map(|_| Writer::new(random.next())).collect();
    let http = cluster.accounts[0].http().expect("it is there");
    std::thread::scope(|scope| {
        for writer in &mut writers {
            let http = &http;
            scope.spawn(move || {
                for _ in 0..ACCOUNTS / 4 {
                    writer.create_account(http).expect("all is well");
                }
            });
        }
    });
    let known: Vec<_> = writers.iter().flat_map(|writer| writer.accounts.iter().map(|account| account.id)).collect();
    under_load(&cluster, &mut writers, PACE, |load| {
        load.wait_for(100);
        publish_again(&cluster, load, || ());
        let publisher = cluster.publisher();
        publish_again(&cluster, load, || {
            // As behind a load balancer that has just noticed, so that no request need fail.
            publisher.take_away();
            publisher.kill();
        });
        publisher.restart();
        load.wait_for(100);
    });
    writers.iter().for_each(Writer::check_none_failed);

    settle(&cluster);
    let tables = cluster.tables();
    tables.check(&writers);
    tables.check_views(&cluster, &mut random);
    let versions: BTreeMap<_, _> = tables.accounts.iter().map(|(id, (_, version))| (*id, *version)).collect();
    for isolation in [Isolation::Committed, Isolation::Uncommitted] {
        let events = cluster.read_topic(isolation);
        assert_eq!(last_versions(&events), versions, "{isolation:?}");
        let records = records_of_each(&events);
        for id in &known {
            let expected = versions[id] as usize + 2;
            assert!(records[id] >= expected, "each version of {id}, and twice its state: {} records", records[id]);
        }
    }
}

/// Runs `tandem resync`, does `meanwhile`, and waits until it says that all is done. The load goes on.
fn publish_again(cluster: &Cluster, load: &Load, meanwhile: impl FnOnce()) {
    let (folder, begun, before) = (TempDir::new().expect("a folder"), Instant::now(), load.acknowledged());
    let said = std::thread::scope(|scope| {
        let resync = scope.spawn(|| resync(folder.path(), &[("ACCOUNT_DATABASE_URL", &cluster.database)]));
        meanwhile();
        resync.join().expect("it ends well")
    });
    let meanwhile = load.acknowledged() - before;
    eprintln!("published again in {:?}, with {meanwhile} requests meanwhile", begun.elapsed());
    assert!(said.ends_with("Done: the event log has the state of every account.\n"), "{said}");
    assert!(meanwhile > 0, "the load stood still");
}

fn records_of_each(events: &[Seen]) -> BTreeMap<AccountId, usize> {
    let mut records = BTreeMap::new();
    for seen in events {
        *records.entry(seen.event.account_id).or_default() += 1;
    }
    records
}
