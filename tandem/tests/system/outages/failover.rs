//! PostgreSQL fails over: the primary is killed and its machine is gone, the standby is promoted, and both services find it by
//! themselves. Until then each request is answered in time, with 503 where it needs the database. Nothing acknowledged is lost,
//! since the primary acknowledges nothing that the standby does not have.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use test_harness::wait_until;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;

use super::database_away::{WRITE_BOUND, all_refused, all_well, probes, while_probed};
use crate::cluster::{Cluster, Writer, settle, under_load};
use crate::kafka::Isolation;
use crate::random::{Random, seed};
use crate::servers::{self, Servers};

/// The pause of a writer between two requests.
const PACE: Duration = Duration::from_millis(20);

/// How long a connection may take until it counts as unanswered.
const UNANSWERED: Duration = Duration::from_millis(200);

#[test]
fn when_the_standby_takes_over_both_services_go_on_with_it_and_nothing_is_lost() {
    let Some((brokers, _)) = servers::shared() else { return };
    let Some(servers) = Servers::start("failover", &["postgres-standby"]) else { return };
    let (primary, standby) = (address(&servers.postgres()), address(&servers.postgres_standby()));
    let database =
        format!("postgres://tandem@{primary},{standby}/postgres?target_session_attrs=read-write&connect_timeout=1");
    let mut random = Random::new(seed());
    let cluster = Cluster::start("failover", (brokers, database), 2, 2);
    let mut writers: Vec<_> = (0..3).map(|_| Writer::new(random.next())).collect();
    let mut probed = Writer::new(random.next());
    let probes = probes(&cluster, &mut probed);
    under_load(&cluster, &mut writers, PACE, |load| {
        while_probed(&probes, || {
            all_well(&cluster, &probes, load);
            load.wait_for(200);
            let begun = Instant::now();
            servers.tell(&["stop", "postgres"]);
            let gone = Gone::instead_of(primary);
            all_refused(&cluster, &probes);
            let (noticed, promoted) = (begun.elapsed(), Instant::now());
            servers.tell(&["promote", "postgres-standby"]);
            all_well(&cluster, &probes, load);
            eprintln!("refused by all after {noticed:?}, all well {:?} after promotion began", promoted.elapsed());
            load.wait_for(200);
            drop(gone);
        });
    });
    let slowest = writers.iter().map(|writer| writer.slowest).max().expect("there are some");
    let refused: usize = writers.iter().map(|writer| writer.refused.len()).sum();
    eprintln!("{refused} writes were refused, the slowest answer to one took {slowest:?}");
    assert!(writers.iter().all(|writer| writer.unanswered.is_empty()), "{:?}", writers[0].unanswered);
    assert!(slowest <= WRITE_BOUND, "a write was answered after {slowest:?}");

    settle(&cluster);
    let tables = cluster.tables();
    writers.push(probed);
    tables.check(&writers);
    tables.check_topic(&cluster.read_topic(Isolation::Committed));
    tables.check_views(&cluster, &mut random);
}

fn address(url: &str) -> SocketAddr {
    let (_, after) = url.split_once('@').expect("a URL with a user");
    after.split_once('/').expect("a URL with a database").0.parse().expect("an address")
}

/// An address that does not even refuse connections, as if its machine were gone: one that listens, and whose queue of
/// connections to be accepted is full.
struct Gone {
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
    _runtime: Runtime,
}

impl Gone {
    fn instead_of(address: SocketAddr) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let _running = runtime.enter();
        let listener = wait_until("the server has left its port", || {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_reuseaddr(true).expect("a socket");
            socket.bind(address).ok()?;
            socket.listen(1).ok()
        });
        let mut queued = Vec::new();
        wait_until("nobody answers there", || {
            let connected =
                runtime.block_on(async { tokio::time::timeout(UNANSWERED, TcpStream::connect(address)).await });
            match connected {
                Ok(stream) => queued.extend(stream.ok()),
                Err(_unanswered) => return Some(()),
            }
            None
        });
        drop(_running);
        Gone { _listener: listener, _queued: queued, _runtime: runtime }
    }
}
