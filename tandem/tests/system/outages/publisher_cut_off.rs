//! The instance that publishes loses its database, and it alone: its connections end, and later nothing comes through them.
//! Publishing moves to the other instance; this one answers 503 in time, and goes on by itself when it has its database back.
//! Whatever it had in hand, no version lands behind a newer one (ARCHITECTURE.md A3).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use test_harness::{Answer, Http, binary, postgres_database, wait_until};

use super::database_away::{READ_BOUND, WRITE_BOUND};
use super::publisher_paused::{MOVED, published};
use crate::cluster::{Cluster, Instance, Load, Writer, settle, under_load};
use crate::kafka::Isolation;
use crate::proxy::{Proxy, Trouble};
use crate::random::{Random, seed};
use crate::requests::john_doe;
use crate::servers;

/// The pause of a writer between two requests.
const PACE: Duration = Duration::from_millis(5);

#[test]
fn a_publisher_without_its_database_leaves_publishing_to_the_other_one() {
    let Some((brokers, server)) = servers::shared() else { return };
    let (mut random, database) = (Random::new(seed()), postgres_database(&server));
    let binaries = |service, count| vec![binary(service); count];
    let (accounts, cards) = (binaries(account_service::NAME, 2), binaries(card_service::NAME, 1));
    let mut cluster = Cluster::plan("cut-off", (brokers, database.clone()), &accounts, &cards);
    let mut proxies = Vec::new();
    for instance in &mut cluster.accounts {
        let (proxy, url) = Proxy::in_front_of(&database);
        instance.set("DATABASE_URL", url);
        proxies.push(proxy);
    }
    cluster.all().for_each(Instance::restart);

    let mut writers: Vec<_> = (0..3).map(|_| Writer::new(random.next())).collect();
    let mut operator = Writer::new(random.next());
    let moves = under_load(&cluster, &mut writers, PACE, |load| {
        [Trouble::Cut, Trouble::Silent].map(|trouble| {
            load.wait_for(300);
            cut_off_publisher(&cluster, &proxies, trouble, &mut operator, load)
        })
    });
    let refused: usize = writers.iter().map(|writer| writer.refused.len()).sum();
    let slowest = writers.iter().map(|writer| writer.slowest).max().expect("there are some");
    eprintln!("{refused} writes were refused, the slowest answer to one took {slowest:?}");
    assert!(writers.iter().all(|writer| writer.unanswered.is_empty()), "{:?}", writers[0].unanswered);
    assert!(slowest <= WRITE_BOUND, "a write was answered after {slowest:?}");
    operator.check_none_failed();
    writers.push(operator);

    settle(&cluster);
    let tables = cluster.tables();
    tables.check(&writers);
    tables.check_topic(&cluster.read_topic(Isolation::Committed));
    tables.check_views(&cluster, &mut random);
    let mut kept = BTreeMap::new();
    for seen in cluster.read_topic(Isolation::Uncommitted) {
        kept.insert(seen.event.account_id, (seen.event.status, seen.event.version.expect("a version")));
    }
    assert_eq!(kept, tables.accounts, "the last record of each key, which compaction keeps, is the newest");
    assert!(moves.iter().all(|moved| *moved <= MOVED), "publishing moved within {moves:?}");
}

/// Returns how long it took until the other instance published.
fn cut_off_publisher(
    cluster: &Cluster,
    proxies: &[Proxy],
    trouble: Trouble,
    operator: &mut Writer,
    load: &Load,
) -> Duration {
    let publisher = cluster.publisher();
    let place = cluster.accounts.iter().position(|instance| std::ptr::eq(instance, publisher)).expect("one of them");
    let (other, proxy) = (&cluster.accounts[1 - place], &proxies[place]);
    let (before, begun) = (published(other), Instant::now());
    proxy.set(Some(trouble));
    let http = other.http().expect("it is there");
    wait_until("the other instance publishes", || {
        operator.create_account(&http).expect("it has its database");
        (published(other) > before).then_some(())
    });
    let moved = begun.elapsed();

    let http = Http::new(publisher.http().expect("it is there").address());
    check_refused(WRITE_BOUND, || http.post("/account", &john_doe()));
    check_refused(READ_BOUND, || http.get("/accounts"));
    // What it perhaps did after all.
    operator.unknown_accounts += 1;
    let noticed = begun.elapsed();
    proxy.set(None);
    let healed = Instant::now();
    wait_until("it is ready again", || (publisher.readyz()["status"] == "ready").then_some(()));
    operator.create_account(&http).expect("it has its database back");
    load.wait_for(100);
    eprintln!(
        "{trouble:?}: publishing moved in {moved:?}, refused after {noticed:?}, serves {:?} after",
        healed.elapsed()
    );
    moved
}

fn check_refused(bound: Duration, ask: impl FnOnce() -> Answer) {
    let asked = Instant::now();
    let answer = ask();
    let took = asked.elapsed();
    assert_eq!((answer.status, answer.text("code")), (503, "storage_unavailable"), "{}", answer.raw);
    assert_ne!(answer.header("retry-after"), "", "{}", answer.raw);
    assert!(took <= bound, "answered after {took:?}");
}
