//! A client that creates or changes an account and at once asks the card service for a card, with the `Account-Version` that it was given
//! and `Prefer: wait`: it is never told "not found", and never answered by an older state.

use std::time::{Duration, Instant};

use serde_json::json;
use test_harness::{Answer, Http};

use crate::cluster::Cluster;
use crate::place::Place;
use crate::requests::{card_of, john_doe};
use crate::servers;

const ACCOUNTS: usize = 2_000;

/// Of so many accounts, one is also blocked, activated and deleted.
const CHANGED: usize = 20;

#[test]
fn on_the_embedded_event_log_every_card_is_created() {
    let place = Place::embedded();
    let services = place.start_services();
    read_writes(std::slice::from_ref(&services.accounts), std::slice::from_ref(&services.cards));
    services.stop();
}

#[test]
fn on_apache_kafka_every_card_is_created() {
    let Some(place) = Place::apache_kafka() else { return };
    let services = place.start_services();
    read_writes(std::slice::from_ref(&services.accounts), std::slice::from_ref(&services.cards));
    services.stop();
}

#[test]
fn behind_a_round_robin_on_three_card_instances_every_card_is_created() {
    let Some(servers) = servers::shared() else { return };
    let cluster = Cluster::start("read-your-writes", servers, 2, 3);
    let [accounts, cards] = [&cluster.accounts, &cluster.cards]
        .map(|instances| instances.iter().filter_map(|instance| instance.http()).collect::<Vec<_>>());
    read_writes(&accounts, &cards);
}

/// Writes to each of the account instances and reads from each of the card instances in turn.
fn read_writes(accounts: &[Http], cards: &[Http]) {
    let mut took: Vec<Duration> = Vec::with_capacity(ACCOUNTS);
    let mut round_robin = cards.iter().cycle();
    for (number, accounts) in (0..ACCOUNTS).zip(accounts.iter().cycle()) {
        let created = accounts.post("/account", &john_doe());
        let id = created.text("id").to_owned();
        let mut create_card = |written: &Answer| {
            let cards = round_robin.next().expect("it has no end");
            let version = written.header("account-version");
            let headers = [("Content-Type", "application/json"), ("Prefer", "wait=5"), ("Account-Version", version)];
            let account = id.parse().expect("an account id");
            cards.send("POST", "/card", &headers, card_of(account).to_string().into_bytes())
        };
        let asked = Instant::now();
        let card = create_card(&created);
        took.push(asked.elapsed());
        assert_eq!((card.status, card.header("preference-applied")), (201, "wait=5"), "{number}: {}", card.raw);
        if number % CHANGED == 0 {
            let path = format!("/account?id={id}");
            for (status, expected) in [("BLOCKED", 403), ("ACTIVE", 201)] {
                let changed = accounts.send_json("PATCH", &path, &json!({ "status": status }));
                let card = create_card(&changed);
                assert_eq!(card.status, expected, "{number}: {}", card.raw);
            }
            let card = create_card(&accounts.delete(&path));
            card.expect_error(403, "account_deleted", "cannot create card for deleted account", None);
        }
    }
    took.sort_unstable();
    let at = |share: f64| took[(share * (took.len() - 1) as f64) as usize];
    eprintln!("POST /card with a wait: p50 {:?}, p99 {:?}, longest {:?}", at(0.5), at(0.99), at(1.0));
}
