//! A TCP proxy through which one instance reaches a server, and which a test can cut or silence while all others reach the
//! server as ever.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// What is wrong with the way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Connections end, and new ones end at once.
    Cut,
    /// Connections stay, new ones are taken, and nothing comes through.
    Silent,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    wire: Arc<Wire>,
}

#[derive(Default)]
struct Wire {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    trouble: Option<Trouble>,
    /// Both ends of each connection, also of those that have ended.
    ends: Vec<TcpStream>,
}

impl Proxy {
    /// In front of the server at `target`, `host:port`. It runs until the test's process ends.
    pub(crate) fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound listener");
        let (wire, target) = (Arc::<Wire>::default(), target.to_owned());
        let proxy = Proxy { address, wire: Arc::clone(&wire) };
        thread::spawn(move || listener.incoming().flatten().for_each(|client| wire.connect(client, &target)));
        proxy
    }

    /// The URL of PostgreSQL with this in front of it.
    pub(crate) fn in_front_of(url: &str) -> (Self, String) {
        let (before, after) = url.split_once('@').expect("a URL with a user");
        let (target, database) = after.split_once('/').expect("a URL with a database");
        let proxy = Proxy::to(target);
        let url = format!("{before}@{}/{database}", proxy.address);
        (proxy, url)
    }

    /// Makes trouble, or heals it.
    pub(crate) fn set(&self, trouble: Option<Trouble>) {
        let mut state = self.wire.state();
        state.trouble = trouble;
        if trouble == Some(Trouble::Cut) {
            // It may have ended already.
            state.ends.drain(..).for_each(|end| drop(end.shutdown(Shutdown::Both)));
        }
        self.wire.changed.notify_all();
    }
}

impl Wire {
    fn connect(self: &Arc<Self>, client: TcpStream, target: &str) {
        let mut state = self.state();
        // A client that is dropped is one that is turned away; so is one whose server is not there.
        let (None | Some(Trouble::Silent), Ok(server)) = (state.trouble, TcpStream::connect(target)) else { return };
        for (from, to) in [(&client, &server), (&server, &client)] {
            from.set_nodelay(true).expect("a socket");
            let end = || from.try_clone().expect("a socket");
            state.ends.push(end());
            let (wire, from, to) = (Arc::clone(self), end(), to.try_clone().expect("a socket"));
            thread::spawn(move || wire.carry(from, to));
        }
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let silent = |state: &mut State| state.trouble == Some(Trouble::Silent);
            drop(self.changed.wait_while(self.state(), silent).unwrap_or_else(PoisonError::into_inner));
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        // The other one may have ended it already.
        [from, to].iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
