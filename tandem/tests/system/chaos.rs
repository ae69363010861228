//! Two account and three card instances on PostgreSQL and Apache Kafka, under load, while one of everything is killed,
//! paused and brought back in turn, and the database hangs up on all.
//!
//! It needs real servers: librdkafka's mock cluster fences nobody. Without `TANDEM_TEST_KAFKA_BROKERS` and
//! `TANDEM_TEST_POSTGRES_URL` (`dev/servers env` prints them) there is nothing to see here.

use std::time::{Duration, Instant};

use account_events::AccountStatus;
use test_harness::{postgres_database, wait_until, with_postgres};

use crate::cluster::{Cluster, Instance, Load, Writer, settle, under_load};
use crate::kafka::Isolation;
use crate::random::{Random, seed};
use crate::requests::{create_card, error};
use crate::servers;

/// Threads that write at the same time.
const WRITERS: usize = 8;

/// Acknowledged requests before each of the [`Trouble`]s, and while an instance is away.
const ACKNOWLEDGED: usize = 200;

#[derive(Debug, Clone, Copy)]
enum Trouble {
    KillPublisher,
    PausePublisher,
    KillCards,
    PauseCards,
    LoseDatabase,
}

/// Each once, but the pause twice, so that publishing also moves back to an instance that once lost it.
const TROUBLES: [Trouble; 6] = [
    Trouble::KillPublisher,
    Trouble::PausePublisher,
    Trouble::PausePublisher,
    Trouble::KillCards,
    Trouble::PauseCards,
    Trouble::LoseDatabase,
];

#[test]
fn instances_on_postgres_and_kafka_survive_each_others_ends() {
    let Some((brokers, server)) = servers::shared() else { return };
    let (mut random, started) = (Random::new(seed()), Instant::now());
    let cluster = Cluster::start("chaos", (brokers, postgres_database(&server)), 2, 3);
    eprintln!("{:?}: all are ready", started.elapsed());
    let mut writers: Vec<_> = (0..WRITERS).map(|_| Writer::new(random.next())).collect();
    let operator = Writer::new(random.next());
    let (operator, acknowledged) = under_load(&cluster, &mut writers, Duration::ZERO, |load| {
        let mut operator = Operator { cluster: &cluster, writer: operator, load };
        for trouble in shuffled(&mut random) {
            load.wait_for(ACKNOWLEDGED);
            let (begun, away) = (Instant::now(), operator.make(trouble, &mut random));
            operator.probe();
            eprintln!(
                "{:?}: {trouble:?}, {away:?} until the others went on, {:?} in all",
                started.elapsed(),
                begun.elapsed()
            );
        }
        load.wait_for(ACKNOWLEDGED);
        (operator.writer, load.acknowledged())
    });
    eprintln!("{:?}: {acknowledged} requests acknowledged", started.elapsed());
    writers.push(operator);
    settle(&cluster);
    eprintln!("{:?}: settled", started.elapsed());
    let tables = cluster.tables();
    tables.check(&writers);
    tables.check_topic(&cluster.read_topic(Isolation::Committed));
    tables.check_views(&cluster, &mut random);
    eprintln!("{:?}: {} accounts, {} cards", started.elapsed(), tables.accounts.len(), tables.cards.len());
}

fn shuffled(random: &mut Random) -> [Trouble; TROUBLES.len()] {
    let mut troubles = TROUBLES;
    for place in (1..troubles.len()).rev() {
        troubles.swap(place, random.below(place + 1));
    }
    troubles
}

/// Makes trouble, and sees that work goes on.
struct Operator<'a> {
    cluster: &'a Cluster,
    /// Has accounts that nobody else writes to.
    writer: Writer,
    load: &'a Load,
}

impl Operator<'_> {
    /// Makes trouble and ends it. Returns how long it took until all went on that could.
    fn make(&mut self, trouble: Trouble, random: &mut Random) -> Duration {
        let one_of_cards = &self.cluster.cards[random.below(self.cluster.cards.len())];
        let begun = Instant::now();
        match trouble {
            Trouble::KillPublisher => {
                let publisher = self.cluster.publisher();
                let begun = Instant::now();
                publisher.kill();
                self.probe();
                let away = begun.elapsed();
                self.load.wait_for(ACKNOWLEDGED);
                publisher.restart();
                away
            }
            Trouble::PausePublisher => {
                let publisher = self.cluster.publisher();
                let begun = Instant::now();
                let http = publisher.pause();
                self.probe();
                let away = begun.elapsed();
                self.load.wait_for(ACKNOWLEDGED);
                publisher.resume(http);
                away
            }
            Trouble::KillCards => {
                one_of_cards.kill();
                self.probe();
                let away = begun.elapsed();
                self.load.wait_for(ACKNOWLEDGED);
                one_of_cards.restart();
                self.check_known(one_of_cards);
                away
            }
            Trouble::PauseCards => self.pause_cards(one_of_cards),
            Trouble::LoseDatabase => {
                with_postgres(&self.cluster.database, async |client| {
                    let others = "datname = current_database() AND pid <> pg_backend_pid()";
                    let sql = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}");
                    client.batch_execute(&sql).await
                });
                self.probe();
                begun.elapsed()
            }
        }
    }

    /// Has an account deleted of which the paused instance still believes that it is active: once the others have closed
    /// it, this one adds no card either (ARCHITECTURE.md C4).
    fn pause_cards(&mut self, instance: &Instance) -> Duration {
        let place = self.probe();
        let id = self.writer.accounts[place].id;
        let begun = Instant::now();
        let http = instance.pause();
        self.probe();
        let away = begun.elapsed();
        let accounts = self.cluster.accounts[0].http().expect("it is there");
        assert!(self.writer.change(&accounts, place, AccountStatus::Deleted), "nothing is wrong with the database");
        wait_until("another instance closes the account", || {
            let sql = "SELECT 1 FROM card.card_accounts WHERE account_id = $1 AND closed";
            with_postgres(&self.cluster.database, async |client| client.query_opt(sql, &[&id.0]).await)
        });
        eprintln!("{:?} from the pause until the account is closed", begun.elapsed());
        self.load.wait_for(ACKNOWLEDGED);
        let http = instance.resume(http);
        let answer = wait_until("the instance that was paused answers", || {
            Some(create_card(&http, id)).filter(|answer| answer.status != 503)
        });
        assert_eq!((answer.status, error(&answer)), (403, "cannot create card for deleted account"));
        away
    }

    /// Has every account instance that is there make an account, and every card instance that is there a card for it.
    /// Returns the last account's place.
    fn probe(&mut self) -> usize {
        let mut last = 0;
        for accounts in self.cluster.accounts.iter().filter_map(Instance::http) {
            let place = wait_until("an account is created", || self.writer.create_account(&accounts));
            for cards in self.cluster.cards.iter().filter_map(Instance::http) {
                wait_until("it gets a card", || self.writer.create_card(&cards, place).then_some(()));
            }
            last = place;
        }
        last
    }

    /// An instance that is ready knows all accounts from before its start (ARCHITECTURE.md C3).
    fn check_known(&self, instance: &Instance) {
        let http = instance.http().expect("it is there");
        for account in &self.writer.accounts {
            let answer = create_card(&http, account.id);
            assert!(matches!(answer.status, 201 | 403 | 503), "{account:?}: {}", answer.body);
        }
    }
}
