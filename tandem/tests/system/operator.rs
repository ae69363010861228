//! An operator who makes trouble for a cluster under load, one trouble after the other, ends each, and checks that work
//! goes on.

mod connections;
mod database;
mod instances;
mod topic;

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Instance, Load, Writer};
use crate::random::Random;
use crate::resync::publish_again;
use crate::servers::{Servers, wait_for_broker};

/// Acknowledged requests after which work goes on.
pub(crate) const ACKNOWLEDGED: usize = 200;

/// How long a server hangs or a condition lasts, at most: sometimes longer than any request may take.
const LONGEST_MILLIS: usize = 12_000;

/// What happens to a cluster. Each has ended when [`Operator::make`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    KillPublisher,
    PausePublisher,
    PauseOtherAccounts,
    KillCards,
    PauseCards,
    /// SIGTERM to any instance.
    Terminate,
    /// SIGHUP to any instance.
    HangUp,
    /// An instance logs at `debug` to a pipe that nobody reads.
    StickStderr,
    /// An instance reaches the database through PgBouncer.
    PoolSessions,
    /// Connections that send nothing, more than an instance has descriptors for by default.
    SilentConnections,
    LoseConnections,
    /// The database gives its sessions other defaults.
    SessionDefaults,
    KillDatabase,
    PauseDatabase,
    KillBroker,
    PauseBroker,
    /// The broker compresses what it is sent.
    Compress,
    AddPartition,
    /// The topic takes no large batches while a backlog is published.
    LimitBatches,
    DeleteTopic,
    /// A partition loses all its records, and an operator has every account published again.
    DeleteRecords,
    Resync,
}

pub(crate) struct Operator<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) servers: &'a Servers,
    /// Has accounts that nobody else writes to.
    pub(crate) writer: Writer,
    pub(crate) load: &'a Load,
    /// Publishing moves to another instance within this time.
    pub(crate) move_bound: Duration,
    /// What else may happen while a condition lasts.
    pub(crate) within: Vec<Trouble>,
}

impl<'a> Operator<'a> {
    /// Makes trouble and ends it. Returns how long it took until all went on that could.
    pub(crate) fn make(&mut self, trouble: Trouble, random: &mut Random) -> Duration {
        let cluster = self.cluster;
        let one_of_cards = &cluster.cards[random.below(cluster.cards.len())];
        let any_instance = cluster.all().nth(random.below(cluster.all().count())).expect("one of them");
        let begun = Instant::now();
        match trouble {
            Trouble::KillPublisher => self.kill_publisher(),
            Trouble::PausePublisher => self.pause_publisher(),
            Trouble::PauseOtherAccounts => self.pause_other_accounts(),
            Trouble::KillCards => self.kill_cards(one_of_cards),
            Trouble::PauseCards => self.pause_cards(one_of_cards),
            Trouble::Terminate => self.stop(any_instance, libc::SIGTERM),
            Trouble::HangUp => self.stop(any_instance, libc::SIGHUP),
            Trouble::StickStderr => self.stick_stderr(any_instance, random),
            Trouble::PoolSessions => self.pool_sessions(any_instance, random),
            Trouble::SilentConnections => self.connect_silently(any_instance, random),
            Trouble::LoseConnections => {
                self.lose_connections();
                self.went_on_since(begun)
            }
            Trouble::SessionDefaults => self.change_session_defaults(random),
            Trouble::KillDatabase => {
                self.servers.tell(&["stop", "postgres"]);
                self.servers.tell(&["start", "postgres"]);
                self.went_on_since(Instant::now())
            }
            Trouble::PauseDatabase => {
                self.servers.tell(&["pause", "postgres"]);
                wait_out(a_while(random));
                self.servers.tell(&["resume", "postgres"]);
                self.went_on_since(Instant::now())
            }
            // Without the broker, what needs no event goes on.
            Trouble::KillBroker => {
                self.servers.tell(&["stop", "kafka-1"]);
                self.load.wait_for(ACKNOWLEDGED);
                self.servers.tell(&["start", "kafka-1"]);
                self.went_on_since(wait_for_broker(&cluster.brokers))
            }
            Trouble::PauseBroker => {
                self.servers.tell(&["pause", "kafka-1"]);
                self.load.wait_for(ACKNOWLEDGED);
                wait_out(a_while(random));
                self.servers.tell(&["resume", "kafka-1"]);
                self.went_on_since(Instant::now())
            }
            Trouble::Compress => self.compress(random),
            Trouble::AddPartition => self.add_partition(),
            Trouble::LimitBatches => self.limit_batches(),
            Trouble::DeleteTopic => self.delete_topic(),
            Trouble::DeleteRecords => self.delete_records(one_of_cards, random),
            Trouble::Resync => {
                publish_again(&cluster.database);
                begun.elapsed()
            }
        }
    }

    /// Lets a condition last for a while in which all goes on, half of the time with another trouble in it. Returns how long
    /// it took until all went on.
    fn endure(&mut self, random: &mut Random) -> Duration {
        let away = self.go_on(Instant::now());
        match random.pick(&self.within).copied() {
            Some(trouble) if random.below(2) == 0 => {
                eprintln!("  meanwhile {trouble:?}");
                self.make(trouble, random);
            }
            _ => wait_out(a_while(random)),
        }
        self.go_on(Instant::now());
        away
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

    /// Has every account instance that is there make an account, and every card instance that is there a card for it.
    /// Returns the last account's place.
    pub(crate) fn probe(&mut self) -> usize {
        let mut last = 0;
        for accounts in self.cluster.accounts.iter().filter_map(Instance::http) {
            last = self.writer.create_account_at(&accounts);
            self.create_cards(last);
        }
        last
    }

    /// Has every card instance that is there make a card for the account at `place`.
    fn create_cards(&mut self, place: usize) {
        for cards in self.cluster.cards.iter().filter_map(Instance::http) {
            self.writer.create_card_at(&cards, place);
        }
    }
}

fn a_while(random: &mut Random) -> Duration {
    Duration::from_millis(random.below(LONGEST_MILLIS) as u64)
}

/// How long a trouble takes is a part of it.
pub(crate) fn wait_out(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::thread::park_timeout(time.saturating_sub(begun.elapsed()));
    }
}
