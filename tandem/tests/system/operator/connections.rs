//! Troubles by connections that take places and say nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use test_harness::wait_until;
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;

use super::Operator;
use crate::cluster::Instance;
use crate::keep_alive::KeepAlive;
use crate::random::Random;

/// More than the usual limit on a process's descriptors, 1,024.
const SILENT: usize = 1_500;

/// How many of them must be connected at least before the trouble has begun.
const SILENT_AT_LEAST: usize = 1_000;

/// Within this time a new connection is answered about the health: a place for it need not be waited for until silent ones
/// run out of time, which takes ten seconds.
const HEALTH_BOUND: Duration = Duration::from_secs(5);

/// Where they come from: the requests of a test come from 127.0.0.1, and one address has only a share of the places.
const STRANGER: &str = "127.0.0.2:0";

/// They end when it is dropped.
struct Silent {
    connected: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl Silent {
    fn connect(address: SocketAddr) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let connected = Arc::<AtomicUsize>::default();
        let stranger = STRANGER.parse().expect("an address");
        for _ in 0..SILENT {
            let socket = TcpSocket::new_v4().expect("a descriptor; `ulimit -n` says how many there are");
            socket.bind(stranger).expect("a free port");
            let connected = Arc::clone(&connected);
            runtime.spawn(async move {
                let stream = socket.connect(address).await;
                connected.fetch_add(usize::from(stream.is_ok()), Ordering::Relaxed);
                std::future::pending::<()>().await;
                drop(stream);
            });
        }
        Silent { connected, _runtime: runtime }
    }
}

impl Operator<'_> {
    pub(super) fn connect_silently(&mut self, instance: &Instance, random: &mut Random) -> Duration {
        let address = instance.http().expect("it is there").address();
        let mut known = KeepAlive::connect(address).expect("a connection");
        let silent = Silent::connect(address);
        wait_until("most are connected", || {
            (silent.connected.load(Ordering::Relaxed) >= SILENT_AT_LEAST).then_some(())
        });
        let asked = Instant::now();
        let mut fresh = KeepAlive::connect(address).expect("a connection");
        assert_eq!(fresh.get("/health").expect("an answer").0, 200);
        assert!(asked.elapsed() <= HEALTH_BOUND, "the health was answered after {:?}", asked.elapsed());
        let list = if instance.has_view() { "/cards?limit=1" } else { "/accounts?limit=1" };
        let (status, body) = known.get(list).expect("an answer");
        assert_eq!(status, 200, "{body}");
        let away = self.endure(random);
        drop(silent);
        away
    }
}
