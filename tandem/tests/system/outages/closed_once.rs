//! Three card instances make cards of one account while it is deleted, again and again: once any of them has closed it, the
//! account has no live card, and none of them adds one (ARCHITECTURE.md C4).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use account_events::AccountId;
use test_harness::{DEADLINE, Http, postgres_database, wait_until, with_postgres};

use crate::cluster::{Cluster, StopOnDrop};
use crate::keep_alive::KeepAlive;
use crate::random::{Random, seed};
use crate::requests::{card_of, create_account, create_card, delete_account};
use crate::servers;

/// Card instances.
const INSTANCES: usize = 3;

/// Threads that make cards, each at one instance.
const THREADS: usize = 8;

/// Accounts, one after the other.
const ROUNDS: usize = 30;

/// Cards before the account is deleted, at most.
const MOST_BEFORE: usize = 60;

/// Requests of each thread after the account was seen closed.
const REQUESTS_AFTER: usize = 5;

/// What one round shares.
struct Round {
    id: AccountId,
    made: AtomicUsize,
    /// Whether a look into the database has found the account closed.
    closed: AtomicBool,
    /// Set where the round has failed.
    over: AtomicBool,
}

#[test]
fn once_any_instance_has_closed_an_account_it_has_no_live_card_and_gets_no_more() {
    let Some((brokers, server)) = servers::shared() else { return };
    let mut random = Random::new(seed());
    let cluster = Cluster::start("closed", (brokers, postgres_database(&server)), 1, INSTANCES);
    let accounts = cluster.accounts[0].http().expect("it is there");
    let cards: Vec<_> = cluster.cards.iter().map(|instance| instance.http().expect("it is there")).collect();
    let (started, mut all, mut looks) = (Instant::now(), 0, 0);
    for _ in 0..ROUNDS {
        let id = create_account(&accounts);
        for http in &cards {
            wait_until("it may have a card", || (create_card(http, id).status == 201).then_some(()));
        }
        let before = random.below(MOST_BEFORE);
        let round =
            Round { id, made: AtomicUsize::new(0), closed: AtomicBool::new(false), over: AtomicBool::new(false) };
        std::thread::scope(|scope| {
            let _over = StopOnDrop(&round.over);
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (round, http) = (&round, &cards[thread % INSTANCES]);
                    scope.spawn(move || make_cards(round, http))
                })
                .collect();
            wait_until("cards are made", || (round.made.load(Ordering::Relaxed) >= before).then_some(()));
            delete_account(&accounts, id);
            looks += look_until_closed(&cluster.database, &round);
            threads.into_iter().for_each(|thread| thread.join().expect("a thread that does not panic"));
        });
        let made = round.made.load(Ordering::Relaxed) + INSTANCES;
        assert_eq!(look(&cluster.database, id), (true, 0, made as i64), "{id}: no card is live, and none is lost");
        all += made;
    }
    eprintln!("{all} cards of {ROUNDS} accounts, {looks} looks, in {:?}", started.elapsed());
}

/// Makes cards until the account is closed, and tries to a little longer.
fn make_cards(round: &Round, http: &Http) {
    let mut connection = KeepAlive::connect(http.address()).expect("a connection");
    let (body, mut refused, mut after) = (card_of(round.id).to_string(), false, 0);
    while after < REQUESTS_AFTER && !round.over.load(Ordering::Acquire) {
        let was_closed = round.closed.load(Ordering::Acquire);
        after += usize::from(was_closed);
        let (status, answer) = connection.post("/card", &body).expect("an answer");
        match status {
            201 => {
                assert!(!was_closed, "a card was added to an account that was closed: {answer}");
                assert!(!refused, "an instance that had refused the account made a card for it: {answer}");
                round.made.fetch_add(1, Ordering::Relaxed);
            }
            403 => {
                assert!(answer.contains("cannot create card for deleted account"), "{answer}");
                refused = true;
            }
            _ => panic!("{status} {answer}"),
        }
    }
}

/// Looks until the account is closed, and a few times more. Returns how often.
fn look_until_closed(database: &str, round: &Round) -> usize {
    with_postgres(database, async |client| {
        let (statement, started) = (client.prepare(LOOK).await?, Instant::now());
        let (mut looks, mut after) = (0, 0);
        while after < REQUESTS_AFTER {
            let row = client.query_one(&statement, &[&round.id.0]).await?;
            let (closed, live): (bool, i64) = (row.get(0), row.get(1));
            assert!(!closed || live == 0, "{} is closed and has {live} live cards", round.id);
            if closed {
                round.closed.store(true, Ordering::Release);
                after += 1;
            }
            looks += 1;
            assert!(started.elapsed() < DEADLINE, "{} is not closed", round.id);
        }
        Ok(looks)
    })
}

/// Whether the account is closed, its live cards, and all its cards: of one moment, as a statement is.
const LOOK: &str = "SELECT coalesce((SELECT closed FROM card.card_accounts WHERE account_id = $1), false),
    count(*) FILTER (WHERE NOT deleted), count(*) FROM card.cards WHERE account_id = $1";

fn look(database: &str, id: AccountId) -> (bool, i64, i64) {
    with_postgres(database, async |client| {
        let row = client.query_one(LOOK, &[&id.0]).await?;
        Ok((row.get(0), row.get(1), row.get(2)))
    })
}
