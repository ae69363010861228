//! Troubles by connections that take places and say nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

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
        let silent = Silent::connect(address);
        wait_until("most are connected", || {
            (silent.connected.load(Ordering::Relaxed) >= SILENT_AT_LEAST).then_some(())
        });
        wait_until("a new connection is answered about the health", || {
            matches!(KeepAlive::connect(address).ok()?.get("/health"), Ok((200, _))).then_some(())
        });
        let away = self.endure(random);
        drop(silent);
        away
    }
}
