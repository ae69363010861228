//! Fetches of the key set that `JWT_JWKS_URL` names: when they happen, and who waits for one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;
use tokio::time::timeout;

/// When a key set is fetched.
#[derive(Debug, Clone, Copy)]
pub struct RefreshTimes {
    /// How long a set is used before it is fetched again.
    pub interval: Duration,
    /// The pause after a fetch that failed.
    pub retry: Duration,
    /// The shortest time between two fetches because of tokens with unknown keys: anyone can send such tokens.
    pub unknown_key: Duration,
}

impl Default for RefreshTimes {
    fn default() -> Self {
        RefreshTimes {
            interval: Duration::from_mins(5),
            retry: Duration::from_secs(10),
            unknown_key: Duration::from_mins(1),
        }
    }
}

/// How long a request waits for a fetch; a fetch takes no longer than [`FETCH_TIMEOUT`](crate::jwks::FETCH_TIMEOUT).
const MAX_WAIT: Duration = Duration::from_secs(6);

/// Decides when the thread that fetches does so.
#[derive(Debug)]
pub(crate) struct Refresh {
    times: RefreshTimes,
    state: Mutex<State>,
    changed: Condvar,
    /// Counts the fetches that ended.
    ended: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    /// A fetch is due or under way.
    is_pending: bool,
    /// When a fetch because of an unknown key began.
    asked: Option<Instant>,
}

impl Refresh {
    /// The first fetch is due at once.
    pub(crate) fn new(times: RefreshTimes) -> Arc<Self> {
        let state = Mutex::new(State { is_pending: true, asked: None });
        Arc::new(Refresh { times, state, changed: Condvar::new(), ended: watch::Sender::new(0) })
    }

    /// Waits until a fetch that is pending has ended. If none is, `may_ask` starts one, at most once a minute. Returns
    /// `false` at once if there is none to wait for.
    pub(crate) async fn wait(&self, may_ask: bool) -> bool {
        let Some(mut ended) = self.pending(may_ask) else { return false };
        // After the time is over, the keys are those that were known before.
        let _ = timeout(MAX_WAIT, ended.changed()).await;
        true
    }

    fn pending(&self, may_ask: bool) -> Option<watch::Receiver<u64>> {
        let mut state = self.state.lock();
        if !state.is_pending {
            if !may_ask || state.asked.is_some_and(|asked| asked.elapsed() < self.times.unknown_key) {
                return None;
            }
            *state = State { is_pending: true, asked: Some(Instant::now()) };
            self.changed.notify_one();
        }
        Some(self.ended.subscribe())
    }

    /// Ends a fetch, and blocks until the next one is due. `has_failed` is the outcome of the fetch.
    pub(crate) fn block_until_due(&self, has_failed: bool) {
        let pause = if has_failed { self.times.retry } else { self.times.interval };
        let mut state = self.state.lock();
        state.is_pending = false;
        self.ended.send_modify(|count| *count += 1);
        self.changed.wait_while_for(&mut state, |state| !state.is_pending, pause);
        state.is_pending = true;
    }
}
