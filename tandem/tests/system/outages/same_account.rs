//! Two instances change the same few accounts at once: each change gets a version of its own, without a gap, in the table
//! and in the topic; and of changes that race with the same `If-Match` exactly one is done.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use account_events::{AccountId, AccountStatus, Version};
use serde_json::json;
use test_harness::{Http, postgres_database};

use crate::cluster::{Cluster, settle};
use crate::kafka::Isolation;
use crate::random::{Random, seed};
use crate::requests::create_account;
use crate::servers;

/// Accounts that all change.
const ACCOUNTS: usize = 3;

/// Threads an instance.
const THREADS: usize = 8;

/// Rounds of a thread: in each it changes one account without a condition, and one with.
const ROUNDS: usize = 40;

#[test]
fn two_instances_that_change_one_account_at_once_give_each_change_a_version_of_its_own() {
    let Some((brokers, server)) = servers::shared() else { return };
    let mut random = Random::new(seed());
    let cluster = Cluster::start("same", (brokers, postgres_database(&server)), 2, 1);
    let instances: Vec<_> = cluster.accounts.iter().map(|instance| instance.http().expect("it is there")).collect();
    let ids: Vec<_> = (0..ACCOUNTS).map(|_| create_account(&instances[0])).collect();
    let (started, threads) = (Instant::now(), instances.len() * THREADS);
    // Nothing in these threads panics: the others would wait for ever.
    let (barrier, current) = (&Barrier::new(threads), &AtomicU32::new(0));
    let changes: Vec<Change> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let http = Http::new(instances[thread % instances.len()].address());
                let (ids, seed) = (&ids, random.next());
                scope.spawn(move || {
                    let (mut random, mut changes) = (Random::new(seed), Vec::new());
                    for round in 0..ROUNDS {
                        let id = *random.pick(ids).expect("there are some");
                        let name = format!("{thread} in round {round}");
                        changes.push(put(&http, id, &mut random, &name, None));
                        // Now all race for the same version of the same account.
                        let id = ids[round % ids.len()];
                        if barrier.wait().is_leader() {
                            current.store(version(&http, id), Ordering::Release);
                        }
                        barrier.wait();
                        let current = current.load(Ordering::Acquire);
                        changes.push(put(&http, id, &mut random, &format!("{name}, too"), Some(current)));
                        barrier.wait();
                    }
                    changes
                })
            })
            .collect();
        handles.into_iter().flat_map(|handle| handle.join().expect("a thread that does not panic")).collect()
    });
    let (done, all) = (changes.iter().filter(|change| change.done.is_some()).count(), changes.len());
    eprintln!("{done} of {all} changes done in {:?}", started.elapsed());
    let odd: Vec<_> = changes.iter().filter_map(|change| change.odd.as_ref()).collect();
    assert!(odd.is_empty(), "{odd:?}");
    check_races(&changes);

    settle(&cluster);
    let (tables, events) = (cluster.tables(), cluster.read_topic(Isolation::Committed));
    for id in ids {
        let (mut told, mut before) = (vec![(1, AccountStatus::Active)], (1, AccountStatus::Active));
        let mut versions: Vec<_> = changes.iter().filter(|change| change.id == id).filter_map(|c| c.done).collect();
        versions.sort_unstable_by_key(|(version, _)| *version);
        for (version, status) in versions {
            assert_eq!(version, before.0 + 1, "{id}: each version was made once");
            // Only changes of the status are told.
            told.extend((status != before.1).then_some((version, status)));
            before = (version, status);
        }
        assert_eq!(tables.accounts[&id], (before.1, before.0), "{id}");
        let seen = events.iter().map(|seen| seen.event).filter(|event| event.account_id == id);
        let seen: Vec<_> = seen.map(|event| (event.version.expect("a version"), event.status)).collect();
        assert_eq!(seen, told, "{id}");
    }
    tables.check_views(&cluster, &mut random);
}

/// What came of one request.
struct Change {
    id: AccountId,
    if_match: Option<Version>,
    /// What it made of the account.
    done: Option<(Version, AccountStatus)>,
    /// An answer that there must not be.
    odd: Option<String>,
}

/// Changes the name, so that it is a change whatever the status was.
fn put(http: &Http, id: AccountId, random: &mut Random, name: &str, if_match: Option<Version>) -> Change {
    let status = *random.pick(&[AccountStatus::Active, AccountStatus::Blocked]).expect("there are two");
    let etag = if_match.map(|version| format!("\"{version}\""));
    let mut headers = vec![("Content-Type", "application/json")];
    headers.extend(etag.as_deref().map(|etag| ("If-Match", etag)));
    let body = json!({ "status": status.as_str(), "beholder_name": name }).to_string().into_bytes();
    let mut change = Change { id, if_match, done: None, odd: None };
    match http.try_send("PUT", &format!("/account?id={id}"), &headers, body) {
        Ok(answer) if answer.status == 200 && answer.body["beholder_name"] == name => {
            change.done = answer.body["version"].as_u64().map(|version| (version as Version, status));
        }
        Ok(answer) if answer.status == 412 && if_match.is_some() => {}
        odd => change.odd = Some(format!("{odd:?}")),
    }
    change
}

/// The version that the account has now; 0 if there is no answer, which no change matches.
fn version(http: &Http, id: AccountId) -> Version {
    let answer = http.try_send("GET", &format!("/account?id={id}"), &[], Vec::new());
    answer.ok().and_then(|answer| answer.body["version"].as_u64()).unwrap_or(0) as Version
}

/// Of the changes that asked for the same version of the same account one was done.
fn check_races(changes: &[Change]) {
    let mut races = BTreeMap::<_, Vec<_>>::new();
    for change in changes {
        if let Some(version) = change.if_match {
            races.entry((change.id, version)).or_default().extend(change.done.map(|(version, _)| version));
        }
    }
    assert_eq!(races.len(), ROUNDS, "one race a round");
    for ((id, version), winners) in races {
        assert_eq!(winners, [version + 1], "{id}: one of those that race wins");
    }
}
