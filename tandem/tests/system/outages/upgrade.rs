//! An upgrade: instances of this version take the places of those of the old one, one by one, and meanwhile both serve,
//! publish and read side by side on the same database and topic. No request fails.
//!
//! Where the old version is, `TANDEM_TEST_OLD_VERSION` says: `dev/old-version` builds it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use account_events::AccountId;
use serde_json::Value;
use test_harness::{binary, postgres_database, wait_until};

use crate::cluster::{Card, Cluster, Instance, Writer, settle, under_load};
use crate::kafka::Isolation;
use crate::keep_alive::KeepAlive;
use crate::random::{Random, seed};
use crate::requests::{card_of, create_card, john_doe};
use crate::servers;

/// Instances of each service.
const ACCOUNTS: usize = 2;
const CARDS: usize = 3;

/// The pause of a writer between two requests.
const PACE: Duration = Duration::from_millis(5);

/// Requests acknowledged between two steps.
const SIDE_BY_SIDE: usize = 300;

#[test]
fn in_a_rolling_upgrade_no_request_fails() {
    let Some((brokers, server)) = servers::shared() else { return };
    let Some(old) = std::env::var_os("TANDEM_TEST_OLD_VERSION").map(PathBuf::from) else { return };
    let (mut random, started) = (Random::new(seed()), Instant::now());
    let versions = |service: &str, count: usize| -> Vec<PathBuf> {
        [vec![old.join(service); count], vec![binary(service); count]].concat()
    };
    let (accounts, cards) = (versions(account_service::NAME, ACCOUNTS), versions(card_service::NAME, CARDS));
    let cluster = Cluster::plan("upgrade", (brokers, postgres_database(&server)), &accounts, &cards);
    let (old_accounts, new_accounts) = cluster.accounts.split_at(ACCOUNTS);
    let (old_cards, new_cards) = cluster.cards.split_at(CARDS);
    old_accounts.iter().chain(old_cards).for_each(Instance::restart);

    let mut writers: Vec<_> = (0..4).map(|_| Writer::new(random.next())).collect();
    let mut last = Writer::new(random.next());
    let account = last.create_account(&old_accounts[0].http().expect("it is there")).expect("all is well");
    let account = last.accounts[account].id;
    under_load(&cluster, &mut writers, PACE, |load| {
        load.wait_for(SIDE_BY_SIDE);
        // New readers of what the old publish come first, then old readers of what the new publish.
        for step in 0..CARDS {
            new_cards[step].restart();
            load.wait_for(SIDE_BY_SIDE);
            retire_cards(&old_cards[step], account, &mut last);
            if step < ACCOUNTS {
                new_accounts[step].restart();
                load.wait_for(SIDE_BY_SIDE);
                retire_accounts(&old_accounts[step], &mut last);
            }
            load.wait_for(SIDE_BY_SIDE);
            let published: Vec<_> =
                cluster.accounts.iter().map(|instance| instance.readyz()["relay"]["published"].clone()).collect();
            eprintln!(
                "{:?}: step {step}, {} requests, published {published:?}",
                started.elapsed(),
                load.acknowledged()
            );
        }
    });
    writers.iter().for_each(Writer::check_none_failed);
    writers.push(last);

    settle(&cluster);
    let tables = cluster.tables();
    tables.check(&writers);
    tables.check_topic(&cluster.read_topic(Isolation::Committed));
    tables.check_views(&cluster, &mut random);
    eprintln!("{:?}: {} accounts, {} cards", started.elapsed(), tables.accounts.len(), tables.cards.len());
}

fn retire_accounts(instance: &Instance, last: &mut Writer) {
    retire(instance, "/account", &john_doe());
    // Its writer has not read the answer.
    last.unknown_accounts += 1;
}

fn retire_cards(instance: &Instance, account: AccountId, last: &mut Writer) {
    let http = instance.http().expect("it is there");
    wait_until("it knows the account", || (create_card(&http, account).status == 201).then_some(()));
    let answer = retire(instance, "/card", &card_of(account));
    let id = answer["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
    last.cards.push(Card { id, account, deleted: false, perhaps_deleted: false });
}

/// As an orchestrator does it: nobody sends it anything new, then SIGTERM, and what it is at is finished. Returns what came
/// of a request that it was at.
fn retire(instance: &Instance, path: &str, body: &Value) -> Value {
    let http = instance.take_away();
    let mut connection = KeepAlive::connect(http.address()).expect("a connection");
    let body = body.to_string();
    connection.begin_post(path, body.len()).expect("it takes the request");
    instance.with_process(|process| process.signal(libc::SIGTERM));
    wait_until("it has noticed", || {
        let lines = instance.with_process(|process| process.lines());
        lines.iter().any(|line| line.contains("SIGTERM")).then_some(())
    });
    connection.send(&body).expect("it reads on");
    let (status, answer) = connection.answer().expect("it answers");
    assert_eq!(status, 201, "{answer}");
    let status = instance.with_process(|process| process.wait());
    assert!(status.success(), "{status}");
    serde_json::from_str(&answer).expect("JSON")
}
