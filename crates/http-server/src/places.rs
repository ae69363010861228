//! The places of one listener's connections: how many there are, how many one client may take, and which connection
//! gives its place up.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::activity::Activity;

/// All places of one listener.
#[derive(Debug)]
pub(crate) struct Places {
    total: usize,
    /// How many of them one client may take: three quarters. A proxy in front of the service is one client and needs
    /// most places; the rest stays for health probes and operators who connect directly.
    share: usize,
    opened: Instant,
    shutdown: CancellationToken,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    last_id: u64,
    connections: HashMap<u64, Holder>,
    /// How many connections each client has.
    clients: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Holder {
    client: IpAddr,
    activity: Arc<Activity>,
    ending: CancellationToken,
}

/// One connection's place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    id: u64,
    pub(crate) activity: Arc<Activity>,
    /// Cancelled when the server stops, and when the connection gives its place up.
    pub(crate) ending: CancellationToken,
}

impl Places {
    pub(crate) fn new(total: usize, shutdown: CancellationToken) -> Arc<Self> {
        let share = (total - total / 4).max(1);
        Arc::new(Self { total, share, opened: Instant::now(), shutdown, taken: Mutex::default() })
    }

    /// A place for a connection from `address`, if need be that of the connection that has been idle the longest: of
    /// the same client where the client has its share already. `None` if no such connection is idle.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let client = client_of(address);
        let mut taken = self.lock();
        if taken.clients.get(&client).is_some_and(|count| *count >= self.share) {
            taken.close_idle(|holder| holder.client == client)?;
        } else if taken.connections.len() >= self.total {
            taken.close_idle(|_| true)?;
        }
        taken.last_id += 1;
        let id = taken.last_id;
        let (activity, ending) = (Arc::new(Activity::new(self.opened)), self.shutdown.child_token());
        let holder = Holder { client, activity: Arc::clone(&activity), ending: ending.clone() };
        taken.connections.insert(id, holder);
        *taken.clients.entry(client).or_default() += 1;
        Some(Place { places: Arc::clone(self), id, activity, ending })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Closes the connection that has been idle the longest of those that `may_close` admits.
    fn close_idle(&mut self, may_close: impl Fn(&Holder) -> bool) -> Option<()> {
        let admitted = self.connections.iter().filter(|(_, holder)| may_close(holder));
        let idle = admitted.filter_map(|(id, holder)| Some((holder.activity.idle_since()?, *id)));
        let (_, id) = idle.min()?;
        if let Some(holder) = self.remove(id) {
            holder.activity.evict();
            holder.ending.cancel();
        }
        Some(())
    }

    fn remove(&mut self, id: u64) -> Option<Holder> {
        let holder = self.connections.remove(&id)?;
        if let Some(count) = self.clients.get_mut(&holder.client) {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(&holder.client);
            }
        }
        Some(holder)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().remove(self.id);
    }
}

/// What counts as one client: an IPv4 address, or an IPv6 /64, the least that one host is given.
fn client_of(address: IpAddr) -> IpAddr {
    const PREFIX: u128 = !0 << 64;
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & PREFIX)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activity::Phase;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_three_quarters_and_then_gives_up_its_own_idle_connections() {
        let places = Places::new(4, CancellationToken::new());
        let [first, _second, third] = [(); 3].map(|()| places.take(address("10.0.0.1")).unwrap());
        let other = places.take(address("10.0.0.2")).unwrap();
        assert!(places.take(address("10.0.0.1")).is_none(), "a new connection may have sent its request already");
        third.activity.set_idle(Instant::now());
        other.activity.set_idle(Instant::now());
        let _fourth = places.take(address("::ffff:10.0.0.1")).unwrap();
        assert!(third.activity.is_evicted() && !other.activity.is_evicted());
        assert!(places.take(address("10.0.0.1")).is_none(), "no connection of that client is idle");
        other.activity.set_phase(Phase::Request);
        assert!(places.take(address("10.0.0.3")).is_none(), "no connection at all is idle");
        drop(third);
        assert!(places.take(address("10.0.0.3")).is_none(), "that place was given away already");
        drop(first);
        assert!(places.take(address("10.0.0.3")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_is_idle_the_longest_goes_first() {
        let places = Places::new(2, CancellationToken::new());
        let [late, early] = ["10.0.0.1", "10.0.0.2"].map(|client| places.take(address(client)).unwrap());
        for place in [&early, &late] {
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
            place.activity.set_idle(Instant::now());
        }
        let _new = places.take(address("10.0.0.3")).unwrap();
        assert!(early.activity.is_evicted() && !late.activity.is_evicted());
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_network() {
        assert_eq!(client_of(address("::ffff:192.0.2.1")), address("192.0.2.1"));
        assert_eq!(client_of(address("2001:db8::1:2:3:4")), client_of(address("2001:db8::5")));
        assert_ne!(client_of(address("2001:db8:0:1::1")), client_of(address("2001:db8::1")));
        assert_ne!(client_of(address("192.0.2.1")), client_of(address("192.0.2.2")));
    }
}
