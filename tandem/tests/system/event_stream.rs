//! `GET /events` with many followers, and resumed at other instances.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use account_events::{AccountId, AccountStatus, Version};
use test_harness::{EventStream, Http, wait_until};

use crate::cluster::Cluster;
use crate::events::record;
use crate::place::Place;
use crate::requests::john_doe;
use crate::servers;

/// How long events are published to many followers.
const PUBLISHING: Duration = Duration::from_secs(5);

/// How often a second events are published.
const BATCHES: u32 = 50;

/// Events between two moves to another instance.
const BETWEEN_MOVES: usize = 500;

/// Moves to another instance.
const MOVES: usize = 6;

#[test]
fn a_thousand_followers_at_a_hundred_events_a_second() {
    follow(1_000, 100);
}

#[test]
fn ten_followers_at_ten_thousand_events_a_second() {
    follow(10, 10_000);
}

/// Every follower gets every event once and in order, and the feed does not wait for them.
fn follow(followers: usize, rate: u32) {
    assert!(process::raise_descriptor_limit() > 2 * followers + 500, "the test needs a larger hard limit of ulimit -n");
    let place = Place::kafka();
    let mut service = place.start_with(card_service::NAME, &[("MAX_EVENT_STREAMS", "1000")]);
    let cards = service.ready_service(card_service::NAME);
    let account: AccountId = "01936f2e-7b1a-7c40-8000-0123456789ab".parse().expect("an account id");
    let (per_batch, batches) = (rate / BATCHES, PUBLISHING.as_secs() as u32 * BATCHES);
    let last: Version = per_batch * batches;
    let streams: Vec<_> = (0..followers).map(|_| EventStream::open(&cards, "/events", None)).collect();
    let log = place.log();
    let mut publisher = log.publisher("test").expect("a publisher");
    let (started, mut slowest) = (Instant::now(), Duration::ZERO);
    thread::scope(|scope| {
        let received: Vec<_> = streams
            .into_iter()
            .map(|mut stream| {
                scope.spawn(move || {
                    for version in 1..=last {
                        let expected = (account.to_string(), u64::from(version));
                        assert_eq!(stream.events(1), [expected], "each event once, in order");
                    }
                })
            })
            .collect();
        for batch in 0..batches {
            let due = started + PUBLISHING * batch / batches;
            thread::park_timeout(due.saturating_duration_since(Instant::now()));
            let versions = batch * per_batch + 1..=(batch + 1) * per_batch;
            let events: Vec<_> = versions.map(|version| record(account, version, AccountStatus::Active)).collect();
            publisher.publish(&events, u64::from(batch)).expect("it takes records");
            if batch % BATCHES == 0 {
                slowest = slowest.max(until_known(&cards, account, (batch + 1) * per_batch));
            }
        }
        let behind = until_known(&cards, account, last);
        let published = Instant::now();
        received.into_iter().for_each(|follower| follower.join().expect("all events"));
        eprintln!(
            "{followers} followers at {rate} events/s: all have all {:?} after the view; the view has an event after {slowest:?} at \
             most, the last one after {behind:?}",
            published.elapsed()
        );
    });
}

/// Waits until the view knows the account in this version, and returns how long that took.
fn until_known(cards: &Http, account: AccountId, version: Version) -> Duration {
    let started = Instant::now();
    wait_until("the view knows the version", || {
        let known = cards.get(&format!("/account-view?account_id={account}"));
        known.body["version"].as_u64().is_some_and(|known| known >= u64::from(version)).then_some(())
    });
    started.elapsed()
}

#[test]
fn a_stream_that_moves_between_instances_that_are_killed_brings_each_event_once() {
    let Some(servers) = servers::shared() else { return };
    let cluster = Cluster::start("event-stream", servers, 1, 2);
    let accounts = cluster.accounts[0].http().expect("it runs");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let create = || {
            let mut created = BTreeSet::new();
            while !is_over.load(Ordering::Acquire) {
                created.insert(
                    accounts.post("/account", &john_doe()).expect(201)["id"].as_str().expect("an id").to_owned(),
                );
            }
            created
        };
        let mut seen = BTreeSet::new();
        let mut read = |stream: &mut EventStream, last_id: &mut String| {
            let block = stream.block().expect("an event, not the end");
            *last_id = block.id;
            if let Some(data) = block.data {
                assert_eq!(block.name, "", "no gap: the log has every event: {data}");
                let id = data["account_id"].as_str().expect("an id").to_owned();
                assert!(seen.insert(id), "twice: {data}");
            }
            seen.len()
        };
        // The first comment has the position before the first account.
        let mut stream = open(&cluster, 0, None);
        let mut last_id = stream.comment().id;
        let creating = scope.spawn(create);
        let mut count = 0;
        for number in 1..=MOVES {
            while count < number * BETWEEN_MOVES {
                count = read(&mut stream, &mut last_id);
            }
            let (old, new) = ((number - 1) % 2, number % 2);
            cluster.cards[old].kill();
            stream = open(&cluster, new, Some(&last_id));
            // Resumed at an instance whose ring begins later, on the next move.
            cluster.cards[old].restart();
        }
        is_over.store(true, Ordering::Release);
        let created = creating.join().expect("all are created");
        while count < created.len() {
            count = read(&mut stream, &mut last_id);
        }
        assert_eq!(seen, created);
        eprintln!("{count} events, {MOVES} moves");
    });
}

fn open(cluster: &Cluster, instance: usize, last_event_id: Option<&str>) -> EventStream {
    let http = cluster.cards[instance].http().expect("it runs");
    EventStream::open(&http, "/events", last_event_id)
}
