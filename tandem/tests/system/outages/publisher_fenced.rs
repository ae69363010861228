//! The instance that publishes stands still for a few seconds, again and again: about as long as it takes until the other
//! one takes over, so that what it had in hand is still good for the brokers but for the fence (ARCHITECTURE.md A3). All the
//! while both change the same few accounts, so anything that comes late would come behind something newer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use account_events::{AccountId, AccountStatus, Version};
use serde_json::json;
use test_harness::{Http, binary, postgres_database, wait_until};

use crate::cluster::{Cluster, Instance, StopOnDrop, any, settle};
use crate::kafka::Isolation;
use crate::random::{Random, seed};
use crate::requests::create_account;
use crate::servers;

/// Pauses, one after the other.
const ROUNDS: usize = 10;

/// So many more at most, until one has met a batch in hand, as two to six of ten do.
const MORE_ROUNDS: usize = 20;

/// How long the shortest pause takes: hardly longer than the lease.
const SHORTEST: Duration = Duration::from_millis(2_300);

/// How much longer the longest takes. The brokers would wait even longer for what was in hand.
const SPREAD_MILLIS: usize = 3_700;

/// Accounts that all threads change.
const ACCOUNTS: usize = 5;

/// Threads that change them.
const THREADS: usize = 6;

/// Changes that are published between two pauses.
const BETWEEN: u64 = 200;

/// What requests made of an account, as they were answered.
type Answered = Vec<(AccountId, Version, AccountStatus)>;

#[test]
fn a_publisher_that_stands_still_with_a_batch_in_hand_is_fenced_when_it_goes_on() {
    let Some((brokers, server)) = servers::shared() else { return };
    let (mut random, started) = (Random::new(seed()), Instant::now());
    let binaries = |service, count| vec![binary(service); count];
    let (accounts, cards) = (binaries(account_service::NAME, 2), binaries(card_service::NAME, 1));
    let cluster = Cluster::plan("fenced", (brokers, postgres_database(&server)), &accounts, &cards);
    let cluster = cluster.with_setting("LOG_LEVEL", "info,event_log=debug");
    cluster.start_all();
    let http = cluster.accounts[0].http().expect("it is there");
    let ids: Vec<_> = (0..ACCOUNTS).map(|_| create_account(&http)).collect();
    let stop = &AtomicBool::new(false);
    let answered: Answered = std::thread::scope(|scope| {
        let _stopped = StopOnDrop(stop);
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (cluster, ids, random) = (&cluster, &ids, Random::new(random.next()));
                scope.spawn(move || change(cluster, ids, random, stop))
            })
            .collect();
        for round in 0..ROUNDS + MORE_ROUNDS {
            if round >= ROUNDS && cluster.accounts.iter().any(|instance| fenced(instance) > 0) {
                break;
            }
            let enough = published(&cluster) + BETWEEN;
            wait_until("changes are published", || (published(&cluster) >= enough).then_some(()));
            let publisher = cluster.publisher();
            let pause = SHORTEST + Duration::from_millis(random.below(SPREAD_MILLIS) as u64);
            let (begun, before) = (Instant::now(), fenced(publisher));
            let http = publisher.pause_unused();
            while begun.elapsed() < pause {
                std::thread::park_timeout(pause.saturating_sub(begun.elapsed()));
            }
            publisher.resume(http);
            // Whether it was fenced shows when it has tried to go on: then one of both publishes again.
            cluster.publisher();
            eprintln!(
                "{:?}: round {round}, paused for {pause:?}, fenced {} times since",
                started.elapsed(),
                fenced(publisher) - before
            );
        }
        stop.store(true, Ordering::Release);
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread that does not panic")).collect()
    });

    settle(&cluster);
    let (tables, events) = (cluster.tables(), cluster.read_topic(Isolation::Committed));
    tables.check_topic(&events);
    tables.check_compacted(&cluster.read_topic(Isolation::Uncommitted));
    tables.check_views(&cluster, &mut random);
    let told: BTreeMap<_, _> =
        events.iter().map(|seen| ((seen.event.account_id, seen.event.version), seen.event.status)).collect();
    for (id, version, status) in &answered {
        assert_eq!(told.get(&(*id, Some(*version))), Some(status), "{id} version {version}");
    }
    let fenced: usize = cluster.accounts.iter().map(fenced).sum();
    eprintln!("{} answers about {ACCOUNTS} accounts, {} records, fenced {fenced} times", answered.len(), events.len());
    assert!(fenced > 0, "no batch in hand met the takeover");
}

/// Changes accounts, whatever the others make of them, until `stop`.
fn change(cluster: &Cluster, ids: &[AccountId], mut random: Random, stop: &AtomicBool) -> Answered {
    let (mut answered, _stopped) = (Answered::new(), StopOnDrop(stop));
    while !stop.load(Ordering::Acquire) {
        let id = *random.pick(ids).expect("there are some");
        let status = *random.pick(&[AccountStatus::Active, AccountStatus::Blocked]).expect("there are two");
        let accounts = any(&cluster.accounts, &mut random);
        let answer = put(&accounts.http, id, status);
        let version = answer["version"].as_u64().and_then(|version| version.try_into().ok()).expect("a version");
        answered.push((id, version, status));
    }
    answered
}

fn put(accounts: &Http, id: AccountId, status: AccountStatus) -> serde_json::Value {
    accounts.send_json("PUT", &format!("/account?id={id}"), &json!({ "status": status.as_str() })).expect(200)
}

/// Events that both have published.
fn published(cluster: &Cluster) -> u64 {
    cluster.accounts.iter().filter_map(|instance| instance.readyz()["relay"]["published"].as_u64()).sum()
}

/// How often the log's client has said that another publisher fenced this one.
fn fenced(instance: &Instance) -> usize {
    let lines = instance.with_process(|process| process.lines());
    lines.iter().filter(|line| line.contains("fenced by a newer instance")).count()
}
