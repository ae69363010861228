//! Two account and three card instances on PostgreSQL and Apache Kafka, under load, while one of everything is killed,
//! paused and brought back in turn, the servers too; the database hangs up on all, and an operator has every account
//! published again.
//!
//! It needs real servers, which it starts itself. Without `TANDEM_TEST_SERVERS` (`dev/servers env` prints it) there is
//! nothing to see here.

use std::time::{Duration, Instant};

use account_events::AccountStatus;
use tempfile::TempDir;
use test_harness::{wait_until, with_postgres};

use crate::cluster::{Cluster, Instance, Load, Writer, settle, under_load};
use crate::kafka::{Isolation, Tail};
use crate::random::{Random, seed};
use crate::requests::{create_card, error};
use crate::resync::{DONE, resync};
use crate::servers::{Servers, wait_for_broker};

/// Threads that write at the same time.
const WRITERS: usize = 8;

/// Acknowledged requests before each of the [`Trouble`]s, and while an instance is away.
const ACKNOWLEDGED: usize = 200;

/// How many before the first trouble: a broker that has only just started has most of its code still to compile, and what a bound
/// is set for is one that runs.
const WARMED_UP: usize = 20 * ACKNOWLEDGED;

/// Within what publishing moves to the other instance: the bound that was set.
const MOVED: Duration = Duration::from_secs(5);

/// How long a server that is paused hangs, at most: sometimes longer than everything that is asked of it may take.
const LONGEST_HANG_MILLIS: usize = 12_000;

#[derive(Debug, Clone, Copy)]
enum Trouble {
    KillPublisher,
    PausePublisher,
    PauseOtherAccounts,
    KillCards,
    PauseCards,
    LoseConnections,
    KillDatabase,
    PauseDatabase,
    KillBroker,
    PauseBroker,
    Resync,
}

/// Each once, but the pause twice, so that publishing also moves back to an instance that once lost it.
const TROUBLES: [Trouble; 12] = [
    Trouble::KillPublisher,
    Trouble::PausePublisher,
    Trouble::PausePublisher,
    Trouble::PauseOtherAccounts,
    Trouble::KillCards,
    Trouble::PauseCards,
    Trouble::LoseConnections,
    Trouble::KillDatabase,
    Trouble::PauseDatabase,
    Trouble::KillBroker,
    Trouble::PauseBroker,
    Trouble::Resync,
];

#[test]
fn instances_on_postgres_and_kafka_survive_each_others_ends() {
    let Some(servers) = Servers::start("chaos", &["kafka", "postgres"]) else { return };
    let (mut random, started) = (Random::new(seed()), Instant::now());
    let cluster = Cluster::start("chaos", (servers.brokers(), servers.postgres()), 2, 3);
    eprintln!("{:?}: all are ready", started.elapsed());
    let mut writers: Vec<_> = (0..WRITERS).map(|_| Writer::new(random.next())).collect();
    let operator = Writer::new(random.next());
    let (operator, acknowledged) = under_load(&cluster, &mut writers, Duration::ZERO, |load| {
        let mut operator = Operator { cluster: &cluster, servers: &servers, writer: operator, load };
        load.wait_for(WARMED_UP);
        for trouble in shuffled(&mut random) {
            load.wait_for(ACKNOWLEDGED);
            eprintln!("{:?}: {trouble:?} begins", started.elapsed());
            let (begun, away) = (Instant::now(), operator.make(trouble, &mut random));
            operator.probe();
            eprintln!(
                "{:?}: {trouble:?}, {away:?} until what could went on, {:?} in all",
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
    tables.check_topic_with_repeats(&cluster.read_topic(Isolation::Committed));
    tables.check_compacted(&cluster.read_topic(Isolation::Uncommitted));
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

/// How long a trouble takes is a part of it.
fn wait_out(hang: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < hang {
        std::thread::park_timeout(hang.saturating_sub(begun.elapsed()));
    }
}

/// Makes trouble, and sees that work goes on.
struct Operator<'a> {
    cluster: &'a Cluster,
    servers: &'a Servers,
    /// Has accounts that nobody else writes to.
    writer: Writer,
    load: &'a Load,
}

impl<'a> Operator<'a> {
    /// Makes trouble and ends it. Returns how long it took until all went on that could.
    fn make(&mut self, trouble: Trouble, random: &mut Random) -> Duration {
        let one_of_cards = &self.cluster.cards[random.below(self.cluster.cards.len())];
        let hang = Duration::from_millis(random.below(LONGEST_HANG_MILLIS) as u64);
        let begun = Instant::now();
        match trouble {
            Trouble::KillPublisher => {
                let (publisher, (), moved) = self.move_publishing(Instance::kill);
                publisher.restart();
                moved
            }
            Trouble::PausePublisher => {
                let (publisher, http, moved) = self.move_publishing(Instance::pause);
                publisher.resume(http);
                moved
            }
            Trouble::PauseOtherAccounts => {
                let publisher = self.cluster.publisher();
                let mut others = self.cluster.accounts.iter().filter(|other| !std::ptr::eq(*other, publisher));
                let other = others.next().expect("there are two");
                let http = other.pause();
                let away = self.go_on(begun);
                other.resume(http);
                away
            }
            Trouble::KillCards => {
                one_of_cards.kill();
                let away = self.go_on(begun);
                one_of_cards.restart();
                self.check_known(one_of_cards);
                away
            }
            Trouble::PauseCards => self.pause_cards(one_of_cards),
            Trouble::LoseConnections => {
                with_postgres(&self.cluster.database, async |client| {
                    let others = "datname = current_database() AND pid <> pg_backend_pid()";
                    let sql = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}");
                    client.batch_execute(&sql).await
                });
                self.went_on_since(begun)
            }
            Trouble::KillDatabase => {
                self.servers.tell(&["stop", "postgres"]);
                self.servers.tell(&["start", "postgres"]);
                self.went_on_since(Instant::now())
            }
            Trouble::PauseDatabase => {
                self.servers.tell(&["pause", "postgres"]);
                wait_out(hang);
                self.servers.tell(&["resume", "postgres"]);
                self.went_on_since(Instant::now())
            }
            // Without the broker, what needs no event goes on.
            Trouble::KillBroker => {
                self.servers.tell(&["stop", "kafka-1"]);
                self.load.wait_for(ACKNOWLEDGED);
                self.servers.tell(&["start", "kafka-1"]);
                self.went_on_since(wait_for_broker(&self.cluster.brokers))
            }
            Trouble::PauseBroker => {
                self.servers.tell(&["pause", "kafka-1"]);
                self.load.wait_for(ACKNOWLEDGED);
                wait_out(hang);
                self.servers.tell(&["resume", "kafka-1"]);
                self.went_on_since(Instant::now())
            }
            Trouble::Resync => {
                let folder = TempDir::new().expect("a folder");
                let said = resync(folder.path(), &[("ACCOUNT_DATABASE_URL", &self.cluster.database)]);
                assert!(said.ends_with(DONE), "{said}");
                begun.elapsed()
            }
        }
    }

    /// Takes the instance away that publishes, and sees that the other one publishes in time: how long it took from then
    /// until an account that was created later is in the topic.
    fn move_publishing<T>(&mut self, take_away: impl FnOnce(&Instance) -> T) -> (&'a Instance, T, Duration) {
        let publisher = self.cluster.publisher();
        let tail = Tail::of(&self.cluster.brokers, &self.cluster.topic);
        let begun = Instant::now();
        let taken = take_away(publisher);
        let accounts = self.cluster.accounts.iter().find_map(Instance::http).expect("there is another one");
        let place = wait_until("an account is created", || self.writer.create_account(&accounts));
        tail.wait_for(&self.writer.accounts[place].id.to_string());
        let moved = begun.elapsed();
        assert!(moved <= MOVED, "publishing moved in {moved:?}");
        self.go_on(begun);
        (publisher, taken, moved)
    }

    /// Sees that all goes on that is there, and for a while. Returns how long after `begun` it did.
    fn go_on(&mut self, begun: Instant) -> Duration {
        let away = self.went_on_since(begun);
        self.load.wait_for(ACKNOWLEDGED);
        away
    }

    /// How long after `begun` all went on that is there.
    fn went_on_since(&mut self, begun: Instant) -> Duration {
        self.probe();
        begun.elapsed()
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
                wait_until(&format!("it gets a card at {}", cards.address()), || {
                    self.writer.create_card(&cards, place).then_some(())
                });
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
