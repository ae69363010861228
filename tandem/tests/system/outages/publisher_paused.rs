//! The instance that publishes stands still for a whole minute, with a batch perhaps half sent, while the other one changes
//! the same accounts and publishes that. When it goes on, nothing of what it had in hand lands behind something newer
//! (ARCHITECTURE.md A3).

use std::time::{Duration, Instant};

use account_events::AccountStatus;
use test_harness::{postgres_database, wait_until};

use crate::cluster::{Cluster, Instance, Load, Writer, any, count, settle, under_load};
use crate::kafka::Isolation;
use crate::random::{Random, seed};
use crate::servers;

/// How long the publisher stands still: far longer than its lease, its transaction and its connections last.
const PAUSED: Duration = Duration::from_secs(60);

/// How long until the other one publishes: the bound that was set.
pub(super) const MOVED: Duration = Duration::from_secs(5);

/// How long changes go on before the pause, and after it.
const AROUND: Duration = Duration::from_secs(3);

/// Accounts whose status changes all the time.
const ACCOUNTS: usize = 10;

/// The pause between two such changes.
const PACE: Duration = Duration::from_millis(10);

#[test]
fn a_publisher_that_stood_still_for_a_minute_puts_nothing_old_behind_something_new() {
    let Some((brokers, server)) = servers::shared() else { return };
    let mut random = Random::new(seed());
    let cluster = Cluster::start("paused", (brokers, postgres_database(&server)), 2, 1);
    let mut others: Vec<_> = (0..2).map(|_| Writer::new(random.next())).collect();
    let mut changer = Changer { writer: Writer::new(random.next()), random, changes: 0 };
    let moved = under_load(&cluster, &mut others, 5 * PACE, |load| changer.pause_publisher(&cluster, load));
    eprintln!("{} changes of {ACCOUNTS} accounts", changer.changes);
    others.push(changer.writer);
    others.iter().for_each(Writer::check_none_failed);

    settle(&cluster);
    let tables = cluster.tables();
    tables.check(&others);
    tables.check_topic(&cluster.read_topic(Isolation::Committed));
    tables.check_views(&cluster, &mut changer.random);
    tables.check_compacted(&cluster.read_topic(Isolation::Uncommitted));
    assert!(moved <= MOVED, "the other instance published {moved:?} after the pause began");
}

struct Changer {
    writer: Writer,
    random: Random,
    changes: usize,
}

impl Changer {
    /// Returns how long it took until the other instance published.
    fn pause_publisher(&mut self, cluster: &Cluster, load: &Load) -> Duration {
        for _ in 0..ACCOUNTS {
            let accounts = any(&cluster.accounts, &mut self.random);
            self.writer.create_account(&accounts.http).expect("all is well");
        }
        self.change_for(AROUND, cluster);
        let publisher = cluster.publisher();
        let other = cluster.accounts.iter().find(|other| !std::ptr::eq(*other, publisher)).expect("there are two");
        let before = published(other);
        let http = publisher.pause_unused();
        let begun = Instant::now();
        wait_until("the other instance publishes", || {
            self.change(cluster);
            (published(other) > before).then_some(())
        });
        let moved = begun.elapsed();
        eprintln!("publishing moved in {moved:?}");
        self.change_for(PAUSED.saturating_sub(begun.elapsed()), cluster);
        let http = publisher.resume(http);
        eprintln!("resumed after {:?}, {} requests of others", begun.elapsed(), load.acknowledged());
        wait_until("it answers again", || {
            http.try_send("GET", "/readyz", &[], Vec::new()).ok().filter(|answer| answer.status == 200)
        });
        self.change_for(AROUND, cluster);
        let sql = "SELECT count(*) FROM account.outbox";
        wait_until("nothing piles up", || (count(&cluster.database, sql) < 100).then_some(()));
        moved
    }

    fn change_for(&mut self, time: Duration, cluster: &Cluster) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.change(cluster);
            std::thread::park_timeout(PACE);
        }
    }

    fn change(&mut self, cluster: &Cluster) {
        let place = self.changes % ACCOUNTS;
        let blocked = self.writer.accounts[place].status == AccountStatus::Blocked;
        let status = if blocked { AccountStatus::Active } else { AccountStatus::Blocked };
        let accounts = any(&cluster.accounts, &mut self.random);
        assert!(self.writer.change(&accounts.http, place, status), "{:?}", self.writer.unanswered);
        self.changes += 1;
    }
}

pub(super) fn published(instance: &Instance) -> u64 {
    instance.readyz()["relay"]["published"].as_u64().expect("a number")
}
