//! The limit on a listener's connections: a slot for each, a share for each client, and eviction of idle connections.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::connection_state::ConnectionState;

/// All slots of one listener.
#[derive(Debug)]
pub(crate) struct Slots {
    total: usize,
    /// The slots that one client may take: at most three quarters. A proxy in front of the service is one client and needs most
    /// slots; the rest is left for health probes and operators who connect directly.
    share: usize,
    shutdown: CancellationToken,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    last_id: u64,
    connections: HashMap<u64, Arc<ConnectionState>>,
}

/// The slot of one connection, which is free again when this value is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    id: u64,
    pub(crate) state: Arc<ConnectionState>,
}

impl Slots {
    /// `share` is the limit for one client; three quarters if `None` or more.
    pub(crate) fn new(total: usize, share: Option<usize>, shutdown: CancellationToken) -> Arc<Self> {
        let most = total - total / 4;
        Arc::new(Self { total, share: share.map_or(most, |share| share.min(most)), shutdown, taken: Mutex::default() })
    }

    /// Takes a slot for a connection from `address`. If no slot is left, the connection that has been idle the longest
    /// loses its slot; if the client has its share, the client's own. Returns `None` if no such connection is idle.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let client = client_of(address);
        let Taken { last_id, connections } = &mut *self.taken.lock();
        let has_share = connections.len() >= self.share
            && connections.values().filter(|state| state.client == client).count() >= self.share;
        if has_share || connections.len() >= self.total {
            let candidates = connections.iter().filter(|(_, state)| !has_share || state.client == client);
            let idle = candidates.filter_map(|(id, state)| Some((state.idle_since()?, *id)));
            let (_, id) = idle.min()?;
            if let Some(evicted) = connections.remove(&id) {
                evicted.ending.cancel();
            }
        }
        *last_id += 1;
        let state = Arc::new(ConnectionState::new(client, self.shutdown.child_token()));
        connections.insert(*last_id, Arc::clone(&state));
        Some(Slot { slots: Arc::clone(self), id: *last_id, state })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.taken.lock().connections.remove(&self.id);
    }
}

/// Returns what counts as one client: an IPv4 address, or an IPv6 /64, the smallest network that a host is assigned.
pub(crate) fn client_of(address: IpAddr) -> IpAddr {
    const PREFIX: u128 = !0 << 64;
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & PREFIX)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::connection_state::Phase;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_three_quarters_and_then_gives_up_its_own_idle_connections() {
        let slots = Slots::new(4, None, CancellationToken::new());
        let [first, _second, third] = [(); 3].map(|()| slots.take(address("10.0.0.1")).unwrap());
        let other = slots.take(address("10.0.0.2")).unwrap();
        assert!(slots.take(address("10.0.0.1")).is_none(), "a new connection may have sent its request already");
        third.state.set_phase(Phase::Idle { since: Instant::now() });
        other.state.set_phase(Phase::Idle { since: Instant::now() });
        let _fourth = slots.take(address("::ffff:10.0.0.1")).unwrap();
        assert!(third.state.ending.is_cancelled() && !other.state.ending.is_cancelled());
        assert!(slots.take(address("10.0.0.1")).is_none(), "no connection of that client is idle");
        other.state.set_phase(Phase::Request);
        assert!(slots.take(address("10.0.0.3")).is_none(), "no connection at all is idle");
        drop(third);
        assert!(slots.take(address("10.0.0.3")).is_none(), "that slot was given away already");
        drop(first);
        assert!(slots.take(address("10.0.0.3")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_is_idle_the_longest_goes_first() {
        let slots = Slots::new(2, None, CancellationToken::new());
        let [late, early] = ["10.0.0.1", "10.0.0.2"].map(|client| slots.take(address(client)).unwrap());
        for slot in [&early, &late] {
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
            slot.state.set_phase(Phase::Idle { since: Instant::now() });
        }
        let _new = slots.take(address("10.0.0.3")).unwrap();
        assert!(early.state.ending.is_cancelled() && !late.state.ending.is_cancelled());
    }

    #[tokio::test]
    async fn the_share_of_a_client_can_be_smaller() {
        let slots = Slots::new(8, Some(1), CancellationToken::new());
        let _first = slots.take(address("10.0.0.1")).unwrap();
        assert!(slots.take(address("10.0.0.1")).is_none());
        assert!(slots.take(address("10.0.0.2")).is_some());
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_network() {
        assert_eq!(client_of(address("::ffff:192.0.2.1")), address("192.0.2.1"));
        assert_eq!(client_of(address("2001:db8::1:2:3:4")), client_of(address("2001:db8::5")));
        assert_ne!(client_of(address("2001:db8:0:1::1")), client_of(address("2001:db8::1")));
        assert_ne!(client_of(address("192.0.2.1")), client_of(address("192.0.2.2")));
    }
}
