//! Two account and three card instances on PostgreSQL and Apache Kafka, under load, while one of everything is killed,
//! paused and brought back in turn, and the database hangs up on all.
//!
//! It needs real servers: librdkafka's mock cluster fences nobody. Without `TANDEM_TEST_KAFKA_BROKERS` and
//! `TANDEM_TEST_POSTGRES_URL` (`dev/servers env` prints them) there is nothing to see here.

mod cluster;
mod load;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use account_events::AccountStatus;
use test_harness::{Http, POSTGRES_URL, postgres_database, wait_until, with_postgres};

use self::cluster::{Cluster, Instance};
use self::load::Writer;
use crate::events::{Seen, last_versions};
use crate::kafka::Kafka;
use crate::random::{Random, seed};
use crate::requests::{create_card, error};
use crate::tables::{Databases, Tables};

/// Threads that write at the same time.
const WRITERS: usize = 8;

/// Acknowledged requests before each of the [`Trouble`]s, and while an instance is away.
const ACKNOWLEDGED: usize = 200;

/// Accounts that each card instance is asked about at the end.
const SAMPLES: usize = 40;

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
    let (Some(kafka), Ok(server)) = (Kafka::real(), std::env::var(POSTGRES_URL)) else { return };
    let (mut random, started) = (Random::new(seed()), Instant::now());
    let cluster = Cluster::start(&kafka, postgres_database(&server));
    eprintln!("{:?}: all are ready", started.elapsed());
    let mut writers: Vec<_> = (0..WRITERS).map(|_| Writer::new(random.next())).collect();
    let mut operator =
        Operator { cluster: &cluster, writer: Writer::new(random.next()), acknowledged: &AtomicUsize::new(0) };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also where this thread fails, or the others would never end.
        let _stopped = StopOnDrop(&stop);
        for writer in &mut writers {
            let (cluster, acknowledged, stop) = (&cluster, operator.acknowledged, &stop);
            scope.spawn(move || {
                let _stopped = StopOnDrop(stop);
                while !stop.load(Ordering::Acquire) {
                    acknowledged.fetch_add(usize::from(writer.write(cluster)), Ordering::Relaxed);
                }
            });
        }
        for trouble in shuffled(&mut random) {
            operator.wait_for_load();
            let (begun, away) = (Instant::now(), operator.make(trouble, &mut random));
            operator.probe();
            eprintln!(
                "{:?}: {trouble:?}, {away:?} until the others went on, {:?} in all",
                started.elapsed(),
                begun.elapsed()
            );
        }
        operator.wait_for_load();
    });
    let acknowledged = operator.acknowledged.load(Ordering::Relaxed);
    eprintln!("{:?}: {acknowledged} requests acknowledged", started.elapsed());
    writers.push(operator.writer);
    settle(&cluster);
    eprintln!("{:?}: settled", started.elapsed());
    let tables = Databases::Postgres(cluster.database.clone()).tables();
    tables.check(&writers);
    tables.check_topic(&kafka.read_committed());
    tables.check_views(&cluster, &mut random);
    eprintln!("{:?}: {} accounts, {} cards", started.elapsed(), tables.accounts.len(), tables.cards.len());
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
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
    acknowledged: &'a AtomicUsize,
}

impl Operator<'_> {
    fn wait_for_load(&self) {
        let target = self.acknowledged.load(Ordering::Relaxed) + ACKNOWLEDGED;
        wait_until("requests are acknowledged", || (self.acknowledged.load(Ordering::Relaxed) >= target).then_some(()));
    }

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
                self.wait_for_load();
                publisher.restart();
                away
            }
            Trouble::PausePublisher => {
                let publisher = self.cluster.publisher();
                let begun = Instant::now();
                let http = publisher.pause();
                self.probe();
                let away = begun.elapsed();
                self.wait_for_load();
                publisher.resume(http);
                away
            }
            Trouble::KillCards => {
                one_of_cards.kill();
                self.probe();
                let away = begun.elapsed();
                self.wait_for_load();
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
    /// it, this one adds no card either (design.md C4).
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
        self.wait_for_load();
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

    /// An instance that is ready knows all accounts from before its start (design.md C3).
    fn check_known(&self, instance: &Instance) {
        let http = instance.http().expect("it is there");
        for account in &self.writer.accounts {
            let answer = create_card(&http, account.id);
            assert!(matches!(answer.status, 201 | 403 | 503), "{account:?}: {}", answer.body);
        }
    }
}

fn count(database: &str, sql: &str) -> i64 {
    with_postgres(database, async |client| Ok(client.query_one(sql, &[]).await?.get(0)))
}

/// Waits until all has been published, read and closed.
fn settle(cluster: &Cluster) {
    let database = &cluster.database;
    cluster.all().for_each(Instance::wait_until_ready);
    let rows = Databases::Postgres(database.clone());
    wait_until("the outbox is empty", || (rows.outbox_events() == 0).then_some(()));
    let accounts = count(database, "SELECT count(*) FROM account.accounts");
    for instance in &cluster.cards {
        wait_until("the view has every account", || {
            (instance.readyz()["view"]["accounts"].as_i64() == Some(accounts)).then_some(())
        });
    }
    wait_until("no deleted account has a live card", || (rows.live_cards_of_deleted() == 0).then_some(()));
}

impl Tables {
    /// Everything acknowledged is there, and nothing else but what may have been done without an answer.
    fn check(&self, writers: &[Writer]) {
        let mut strangers = self.accounts.clone();
        for account in writers.iter().flat_map(|writer| &writer.accounts) {
            let found = strangers.remove(&account.id);
            let found = found.unwrap_or_else(|| panic!("{account:?} was acknowledged and is lost"));
            let perhaps = account.perhaps.map(|status| (status, account.version + 1));
            assert!(found == (account.status, account.version) || Some(found) == perhaps, "{account:?}: {found:?}");
        }
        let unknown: usize = writers.iter().map(|writer| writer.unknown_accounts).sum();
        assert!(strangers.len() <= unknown, "{unknown} creations were not answered: {strangers:?}");
        assert!(strangers.values().all(|found| *found == (AccountStatus::Active, 1)), "{strangers:?}");
        for card in writers.iter().flat_map(|writer| &writer.cards) {
            let found = self.cards.get(&card.id).unwrap_or_else(|| panic!("{card:?} was acknowledged and is lost"));
            let closed = self.accounts[&card.account].0 == AccountStatus::Deleted;
            let may_be = card.deleted || card.perhaps_deleted || closed;
            let must_be = card.deleted || closed;
            assert!(found.0 == card.account && (found.1 || !must_be) && (!found.1 || may_be), "{card:?}: {found:?}");
        }
    }

    /// The topic tells of every version of every account, in order, and nothing twice.
    fn check_topic(&self, events: &[Seen]) {
        assert_eq!(last_versions(events).len(), self.accounts.len(), "every account has its events");
        let mut told = BTreeMap::<_, Vec<_>>::new();
        for Seen { event, .. } in events {
            told.entry(event.account_id).or_default().push((event.version.expect("checked above"), event.status));
        }
        for (id, (status, version)) in &self.accounts {
            let versions: Vec<_> = told[id].iter().map(|(version, _)| *version).collect();
            assert_eq!(versions, (1..=*version).collect::<Vec<_>>(), "{id}");
            assert_eq!(told[id].last(), Some(&(*version, *status)), "{id}");
        }
    }

    /// Each instance answers by each account's status.
    fn check_views(&self, cluster: &Cluster, random: &mut Random) {
        let accounts: Vec<_> = self.accounts.iter().collect();
        for instance in &cluster.cards {
            let view = &instance.readyz()["view"];
            assert_eq!(
                (view["accounts"].as_u64(), view["quarantined"].as_u64()),
                (Some(accounts.len() as u64), Some(0))
            );
            // Connections that rested for long are closed.
            let http = Http::new(instance.http().expect("it is there").address());
            for _ in 0..SAMPLES {
                let (id, (status, _)) = random.pick(&accounts).expect("there are accounts");
                let expected = match status {
                    AccountStatus::Active => (201, ""),
                    AccountStatus::Blocked => (403, "cannot create card for inactive account"),
                    AccountStatus::Deleted => (403, "cannot create card for deleted account"),
                };
                let answer = create_card(&http, **id);
                assert_eq!((answer.status, error(&answer)), expected, "{id}");
            }
        }
    }
}
