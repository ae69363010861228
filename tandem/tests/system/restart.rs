//! A restart with 100,000 accounts (ARCHITECTURE.md C3): from the first moment on, no request sees "account not found".

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use test_harness::{DEADLINE, Http, wait_until};

use crate::keep_alive::KeepAlive;
use crate::place::Place;
use crate::random::{Random, seed};
use crate::requests::{free_port, john_doe};

const ACCOUNTS: usize = 100_000;

/// Connections that create accounts at the same time: as many requests share a commit.
const CREATORS: usize = 50;

/// Connections that ask for cards at the same time.
const ASKERS: usize = 4;

/// Cards that are made before the test is content.
const CARDS: u64 = 5_000;

#[test]
fn no_account_is_unknown_after_a_restart_with_100_000() {
    let (mut random, place) = (Random::new(seed()), Place::durable());
    let started = Instant::now();
    let ids = create_accounts(&place);
    eprintln!("{} accounts made in {:?}", ids.len(), started.elapsed());

    let card_port = free_port(&mut random);
    let address = SocketAddr::from(([127, 0, 0, 1], card_port));
    let started = Instant::now();
    let port = card_port.to_string();
    let mut tandem = place.start_all_in_one_with(&[("CARD_PORT", &port)]);
    let (made, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..ASKERS {
            let (ids, made, refused, random) = (&ids, &made, &refused, Random::new(random.next()));
            scope.spawn(move || ask_for_cards(address, ids, random, made, refused));
        }
        tandem.ready_service(card_service::NAME);
        eprintln!("ready after {:?}, start of the process included", started.elapsed());
    });
    let (made, refused) = (made.into_inner(), refused.into_inner());
    eprintln!("{made} cards made, {refused} refused with 503 before, {:?}", started.elapsed());
    assert!(tandem.terminate().success(), "{:#?}", tandem.lines());
}

/// Starts the all-in-one, makes the accounts, and stops it. Returns their ids.
fn create_accounts(place: &Place) -> Vec<String> {
    let mut tandem = place.start_all_in_one();
    let address = tandem.ready_service(account_service::NAME).address();
    let body = john_doe().to_string();
    let create = || {
        let mut connection = KeepAlive::connect(address).expect("a connection");
        let ids = (0..ACCOUNTS / CREATORS).map(|_| {
            let (status, account) = connection.post("/account", &body).expect("an answer");
            assert_eq!(status, 201, "{account}");
            account.split('"').nth(3).expect("the id comes first").to_owned()
        });
        ids.collect::<Vec<_>>()
    };
    let ids = std::thread::scope(|scope| {
        let creators: Vec<_> = (0..CREATORS).map(|_| scope.spawn(create)).collect();
        creators.into_iter().flat_map(|creator| creator.join().expect("no panic")).collect()
    });
    let databases = place.databases();
    wait_until("the outbox is empty", || (databases.outbox_events() == 0).then_some(()));
    assert!(tandem.terminate().success(), "{:#?}", tandem.lines());
    ids
}

/// Asks for cards of random accounts from the first connection on that is taken.
fn ask_for_cards(address: SocketAddr, ids: &[String], mut random: Random, made: &AtomicU64, refused: &AtomicU64) {
    let mut connection = wait_until("the card port accepts connections", || KeepAlive::connect(address).ok());
    let started = Instant::now();
    while made.load(Ordering::Relaxed) < CARDS {
        assert!(started.elapsed() < DEADLINE, "{refused:?} requests refused, {made:?} cards made in {DEADLINE:?}");
        let id = random.pick(ids).expect("accounts");
        let body = format!(r#"{{"country":"US","account_id":"{id}"}}"#);
        match connection.post("/card", &body).expect("an answer") {
            (201, _) => made.fetch_add(1, Ordering::Relaxed),
            (503, answer) if answer.contains(r#""error":"account view is catching up""#) => {
                refused.fetch_add(1, Ordering::Relaxed)
            }
            (status, answer) => panic!("account {id}: {status} {answer}"),
        };
    }
    let total = Http::new(address).get("/cards?limit=1").expect(200)["total"].as_u64();
    assert!(total.is_some_and(|total| total >= CARDS), "{total:?} cards");
}
