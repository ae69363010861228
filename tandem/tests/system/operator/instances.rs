//! Troubles of one instance: it is killed, paused or stopped, or its log is stuck.

use std::time::{Duration, Instant};

use account_events::AccountStatus;
use test_harness::{wait_until, with_postgres};

use super::{ACKNOWLEDGED, Operator};
use crate::cluster::Instance;
use crate::kafka::Tail;
use crate::random::Random;
use crate::requests::{create_card, error};

/// Accounts that an instance is asked about after its start, about as many at most.
const ASKED: usize = 200;

/// How often [`ACKNOWLEDGED`] requests must be answered until an instance that logs each, at `debug`, has logged more than
/// a pipe holds, 64 KiB.
const ROUNDS_TO_FILL_A_PIPE: usize = 10;

impl<'a> Operator<'a> {
    pub(super) fn kill_publisher(&mut self) -> Duration {
        let (publisher, (), moved) = self.move_publishing(Instance::kill);
        publisher.restart();
        moved
    }

    pub(super) fn pause_publisher(&mut self) -> Duration {
        let (publisher, http, moved) = self.move_publishing(Instance::pause);
        publisher.resume(http);
        moved
    }

    /// Takes the instance away that publishes, and sees that the other one publishes in time: how long it took from then
    /// until an account that was created later is in the topic.
    fn move_publishing<T>(&mut self, take_away: impl FnOnce(&Instance) -> T) -> (&'a Instance, T, Duration) {
        let publisher = self.cluster.publisher();
        let tail = Tail::of(&self.cluster.brokers, &self.cluster.topic);
        let begun = Instant::now();
        let taken = take_away(publisher);
        let accounts = self.cluster.accounts.iter().find_map(Instance::http).expect("there is another one");
        let place = self.writer.create_account_at(&accounts);
        tail.wait_for(&self.writer.accounts[place].id.to_string());
        let moved = begun.elapsed();
        assert!(moved <= self.move_bound, "publishing moved in {moved:?}");
        self.go_on(begun);
        (publisher, taken, moved)
    }

    pub(super) fn pause_other_accounts(&mut self) -> Duration {
        let publisher = self.cluster.publisher();
        let mut others = self.cluster.accounts.iter().filter(|other| !std::ptr::eq(*other, publisher));
        let other = others.next().expect("there are two");
        let begun = Instant::now();
        let http = other.pause();
        let away = self.go_on(begun);
        other.resume(http);
        away
    }

    pub(super) fn kill_cards(&mut self, instance: &Instance) -> Duration {
        let begun = Instant::now();
        instance.kill();
        let away = self.go_on(begun);
        instance.restart();
        self.check_known(instance);
        away
    }

    /// Has an account deleted of which the paused instance still believes that it is active: once the others have closed
    /// it, this one adds no card either (ARCHITECTURE.md C4).
    pub(super) fn pause_cards(&mut self, instance: &Instance) -> Duration {
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

    /// Ends an instance by a signal that asks for it, and starts it again.
    pub(super) fn stop(&mut self, instance: &Instance, signal: i32) -> Duration {
        let begun = Instant::now();
        instance.stop(signal);
        let away = self.go_on(begun);
        instance.restart();
        self.check_known(instance);
        away
    }

    /// Nobody reads what an instance logs, as behind a collector that hangs. The instance works, and ends cleanly.
    pub(super) fn stick_stderr(&mut self, instance: &Instance, random: &mut Random) -> Duration {
        instance.stop(libc::SIGTERM);
        instance.restart_with(&[("LOG_LEVEL", "debug")]);
        instance.with_process(|process| process.leave_stderr_unread());
        (0..ROUNDS_TO_FILL_A_PIPE).for_each(|_| self.load.wait_for(ACKNOWLEDGED));
        let away = self.endure(random);
        self.stop(instance, libc::SIGTERM);
        away
    }

    pub(super) fn pool_sessions(&mut self, instance: &Instance, random: &mut Random) -> Duration {
        instance.stop(libc::SIGTERM);
        instance.restart_with(&[("DATABASE_URL", &self.servers.pgbouncer())]);
        let away = self.endure(random);
        self.stop(instance, libc::SIGTERM);
        away
    }

    /// An instance that is ready knows all accounts from before its start (ARCHITECTURE.md C3).
    fn check_known(&self, instance: &Instance) {
        if !instance.has_view() {
            return;
        }
        let http = instance.http().expect("it is there");
        let accounts = &self.writer.accounts;
        for account in accounts.iter().step_by(accounts.len() / ASKED + 1) {
            let answer = create_card(&http, account.id);
            assert!(matches!(answer.status, 201 | 403 | 503), "{account:?}: {}", answer.body);
        }
    }
}
