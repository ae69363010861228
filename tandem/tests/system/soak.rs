//! Two account and three card instances on PostgreSQL and Apache Kafka, under load for as long as is asked for, while
//! troubles of every kind come at random, and clients of two kinds look on: a hostile one, and one whose connections rest.
//!
//! `TANDEM_TEST_SOAK_SECONDS` says how long; without it there is nothing to see here. `TANDEM_TEST_SOAK_ONLY` names the
//! troubles and [`Guest`]s to keep, with commas. It starts servers of its own by `TANDEM_TEST_SERVERS`, and holds more
//! connections than the usual limit on descriptors, 1,024.

mod hostile;
mod resting;

use std::fmt::Debug;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use test_harness::{DEADLINE, binary};

use crate::cluster::{Cluster, StopOnDrop, Writer, check_order, settle, under_load};
use crate::kafka::Isolation;
use crate::operator::{ACKNOWLEDGED, Operator, Trouble, wait_out};
use crate::random::{Random, seed};
use crate::servers::Servers;

/// Threads that write at the same time.
const WRITERS: usize = 8;

/// The pause of a thread between two requests: what is written in 20 minutes is read again at the end.
const PACE: Duration = Duration::from_millis(20);

/// Descriptors that a process has unless it asks for more: the usual soft limit.
const DESCRIPTORS: usize = 1_024;

/// Those that are drawn, each once before any comes again.
const TROUBLES: [Trouble; 22] = [
    Trouble::KillPublisher,
    Trouble::PausePublisher,
    Trouble::PauseOtherAccounts,
    Trouble::KillCards,
    Trouble::PauseCards,
    Trouble::Terminate,
    Trouble::HangUp,
    Trouble::StickStderr,
    Trouble::PoolSessions,
    Trouble::SilentConnections,
    Trouble::LoseConnections,
    Trouble::SessionDefaults,
    Trouble::KillDatabase,
    Trouble::PauseDatabase,
    Trouble::KillBroker,
    Trouble::PauseBroker,
    Trouble::Compress,
    Trouble::AddPartition,
    Trouble::LimitBatches,
    Trouble::DeleteTopic,
    Trouble::DeleteRecords,
    Trouble::Resync,
];

/// Those that come once at most.
const ONCE: [Trouble; 1] = [Trouble::DeleteTopic];

/// Those that also come while another one lasts: short ones that leave nobody away.
const WITHIN: [Trouble; 6] = [
    Trouble::KillPublisher,
    Trouble::KillCards,
    Trouble::LoseConnections,
    Trouble::KillDatabase,
    Trouble::KillBroker,
    Trouble::Resync,
];

/// Clients that are there all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guest {
    HostileClient,
    RestingConnections,
}

const GUESTS: [Guest; 2] = [Guest::HostileClient, Guest::RestingConnections];

#[test]
fn nothing_acknowledged_is_lost_in_troubles_of_every_kind() {
    let Ok(seconds) = std::env::var("TANDEM_TEST_SOAK_SECONDS") else { return };
    let lasts = Duration::from_secs(seconds.parse().expect("TANDEM_TEST_SOAK_SECONDS is a number"));
    let (troubles, guests) = (chosen(&TROUBLES), chosen(&GUESTS));
    assert!(!troubles.is_empty() || !guests.is_empty(), "TANDEM_TEST_SOAK_ONLY names nothing that there is");
    let (mut random, started) = (Random::new(seed()), Instant::now());
    let servers = Servers::start("soak", &["kafka", "postgres", "pgbouncer"]).expect("TANDEM_TEST_SERVERS");
    let folder = TempDir::new().expect("a folder");
    let limited = |service, count| vec![with_usual_limits(folder.path(), service); count];
    let (accounts, cards) = (limited(account_service::NAME, 2), limited(card_service::NAME, 3));
    let cluster = Cluster::plan("soak", (servers.brokers(), servers.postgres()), &accounts, &cards);
    cluster.start_all();
    eprintln!("{:?}: all are ready", started.elapsed());
    let ends = Instant::now() + lasts;
    let mut writers: Vec<_> = (0..WRITERS).map(|_| Writer::new(random.next())).collect();
    let (writer, stop) = (Writer::new(random.next()), &AtomicBool::new(false));
    let (cluster, servers) = (&cluster, &servers);
    let operator = std::thread::scope(|scope| {
        let _stopped = StopOnDrop(stop);
        for guest in guests {
            let mut random = Random::new(random.next());
            scope.spawn(move || {
                let _stopped = StopOnDrop(stop);
                match guest {
                    Guest::HostileClient => hostile::attack(cluster, &mut random, stop),
                    Guest::RestingConnections => resting::rest(cluster, &mut random, stop),
                }
            });
        }
        under_load(cluster, &mut writers, PACE, |load| {
            let within = chosen(&WITHIN);
            let mut operator = Operator { cluster, servers, writer, load, move_bound: DEADLINE, within };
            let (mut left, mut drawn) = (troubles, Vec::new());
            while Instant::now() < ends && !stop.load(Ordering::Acquire) {
                load.wait_for(ACKNOWLEDGED);
                if drawn.is_empty() {
                    drawn.clone_from(&left);
                    random.shuffle(&mut drawn);
                    left.retain(|trouble| !ONCE.contains(trouble));
                }
                let Some(trouble) = drawn.pop() else {
                    wait_out(PACE);
                    continue;
                };
                eprintln!("{:?}: {trouble:?}", started.elapsed());
                let away = operator.make(trouble, &mut random);
                operator.probe();
                eprintln!("{:?}: {trouble:?} is over, {away:?} until what could went on", started.elapsed());
            }
            eprintln!("{:?}: {} requests acknowledged", started.elapsed(), load.acknowledged());
            operator.writer
        })
    });
    writers.push(operator);
    settle(cluster);
    eprintln!("{:?}: settled", started.elapsed());
    let tables = cluster.tables();
    tables.check(&writers);
    let committed = cluster.read_topic(Isolation::Committed);
    check_order(&committed);
    tables.check_newest(&committed);
    tables.check_newest(&cluster.read_topic(Isolation::Uncommitted));
    tables.check_views(cluster, &mut random);
    eprintln!("{:?}: {} accounts, {} cards", started.elapsed(), tables.accounts.len(), tables.cards.len());
}

/// Those of `all` that `TANDEM_TEST_SOAK_ONLY` names; without it, all.
fn chosen<T: Copy + Debug>(all: &[T]) -> Vec<T> {
    let Ok(only) = std::env::var("TANDEM_TEST_SOAK_ONLY") else { return all.to_vec() };
    let is_named = |item: &T| only.split(',').any(|name| name == format!("{item:?}"));
    all.iter().copied().filter(is_named).collect()
}

/// A program that starts the service with the usual limits, whichever those of the test are.
fn with_usual_limits(folder: &Path, service: &str) -> PathBuf {
    let path = folder.join(service);
    let script = format!("#!/bin/sh\nulimit -Sn {DESCRIPTORS}\nexec '{}' \"$@\"\n", binary(service).display());
    std::fs::write(&path, script).expect("a folder to write in");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a file of our own");
    path
}
