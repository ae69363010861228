//! `kill -9` of the all-in-one under load, twenty times on the same databases and event log.
//!
//! Each round writes until a random number of requests is acknowledged, and kills. Then it starts the binary again, waits
//! until the relay has published what the crash left in the outbox, looks at it through HTTP, stops it, and compares the
//! databases and the event log with what was acknowledged, and with each other.

mod acknowledged;
mod found;
mod keys;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Instant;

use account_events::AccountStatus;
use test_harness::wait_until;

use self::acknowledged::Writer;
use self::found::Found;
use crate::place::Place;
use crate::random::{Random, seed};
use crate::requests::{create_card, error};

const ROUNDS: usize = 20;

/// Threads that write at the same time.
const WRITERS: usize = 4;

/// A round ends by a kill after fewer acknowledged requests than this, in all.
const MAX_ACKNOWLEDGED: usize = 400;

/// Accounts that are looked at through HTTP after each restart.
const SAMPLES: usize = 12;

#[test]
fn what_is_acknowledged_survives_twenty_kills() {
    let (mut random, started) = (Random::new(seed()), Instant::now());
    let place = Place::durable();
    let mut writers: Vec<_> = (0..WRITERS).map(|_| Writer::new(random.next())).collect();
    let mut acknowledged = 0;
    for round in 1..=ROUNDS {
        let kill_after = random.below(MAX_ACKNOWLEDGED);
        acknowledged += write_until_killed(&place, &mut writers, kill_after);
        recover(&place, &writers, &mut random);
        Found::read(&place).check(&mut writers, round);
    }
    eprintln!("{ROUNDS} kills, {acknowledged} requests acknowledged, {:?}", started.elapsed());
}

/// Lets the writers write, kills the process after `kill_after` requests, and returns how many were acknowledged.
fn write_until_killed(place: &Place, writers: &mut [Writer], kill_after: usize) -> usize {
    let mut tandem = place.start_all_in_one();
    let (accounts, cards) = (tandem.service(account_service::NAME), tandem.service(card_service::NAME));
    let (killed, (acknowledge, acknowledged)) = (AtomicBool::new(false), channel());
    std::thread::scope(|scope| {
        for writer in writers {
            let (accounts, cards, killed, acknowledge) = (&accounts, &cards, &killed, acknowledge.clone());
            scope.spawn(move || {
                while writer.write(accounts, cards) {
                    // The receiver is there until all writers have ended.
                    let _ = acknowledge.send(());
                }
                assert!(killed.load(Ordering::Acquire), "a request was not answered before the kill");
            });
        }
        drop(acknowledge);
        let before = acknowledged.iter().take(kill_after).count();
        killed.store(true, Ordering::Release);
        tandem.kill();
        before + acknowledged.iter().count()
    })
}

/// Starts the process again, lets it publish all that is left, asks for some cards, and stops it.
fn recover(place: &Place, writers: &[Writer], random: &mut Random) {
    let databases = place.databases();
    let mut tandem = place.start_all_in_one();
    let cards = tandem.ready_service(card_service::NAME);
    tandem.ready_service(account_service::NAME);
    for _ in 0..SAMPLES {
        let writer = &writers[random.below(WRITERS)];
        let Some((id, status)) = writer.sample(random) else { continue };
        let expected = match status {
            AccountStatus::Active => (201, ""),
            AccountStatus::Blocked => (403, "cannot create card for inactive account"),
            AccountStatus::Deleted => (403, "cannot create card for deleted account"),
        };
        let answer = create_card(&cards, id);
        assert_eq!(
            (answer.status, error(&answer)),
            expected,
            "once the card service is ready, its view holds what was committed"
        );
    }
    wait_until("the outbox is empty", || (databases.outbox_events() == 0).then_some(()));
    wait_until("no deleted account has a live card", || (databases.live_cards_of_deleted() == 0).then_some(()));
    assert!(tandem.terminate().success(), "{:#?}", tandem.lines());
}
