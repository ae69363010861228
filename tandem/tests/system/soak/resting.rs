//! Connections that rest between requests, as those of a proxy's pool do: none may be closed under a request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Instance};
use crate::keep_alive::KeepAlive;
use crate::random::Random;

/// Connections in the pool.
const POOL: usize = 20;

/// How long a connection rests at most: the usual limit of proxies. The services keep one longer.
const LONGEST_REST_MILLIS: usize = 60_000;

/// How often is looked whether a connection has rested long enough.
const PACE: Duration = Duration::from_millis(50);

struct Resting<'a> {
    instance: &'a Instance,
    /// The connection counts as long as the instance has been away no more often.
    absences: usize,
    connection: KeepAlive,
    until: Instant,
}

/// Keeps the pool full and uses what has rested, until it is to stop.
pub(super) fn rest(cluster: &Cluster, random: &mut Random, stop: &AtomicBool) {
    let (all, mut pool, mut used) = (cluster.all().collect::<Vec<_>>(), Vec::new(), 0);
    while !stop.load(Ordering::Acquire) {
        if pool.len() < POOL {
            pool.extend(Resting::connect(all[random.below(all.len())], random));
        }
        let now = Instant::now();
        for mut rested in pool.extract_if(.., |resting: &mut Resting<'_>| resting.until <= now) {
            let answer = rested.connection.get("/health");
            if rested.instance.absences() == rested.absences {
                assert!(matches!(answer, Ok((200, _))), "a connection that rested was lost: {answer:?}");
                used += 1;
            }
        }
        std::thread::park_timeout(PACE);
    }
    eprintln!("{used} connections were used after they had rested");
}

impl<'a> Resting<'a> {
    /// `None` where the instance is away.
    fn connect(instance: &'a Instance, random: &mut Random) -> Option<Self> {
        let absences = instance.absences();
        let mut connection = KeepAlive::connect(instance.http()?.address()).ok()?;
        matches!(connection.get("/health"), Ok((200, _))).then_some(())?;
        let rest = Duration::from_millis(random.below(LONGEST_REST_MILLIS) as u64);
        Some(Resting { instance, absences, connection, until: Instant::now() + rest })
    }
}
