//! What the tests of several crates share: an HTTP client that takes every answer as it is ([`Http`]), processes to start,
//! stop and kill ([`Process`]), services inside the test's own process ([`InProcess`]), and waiting for a condition with a
//! deadline ([`wait_until`]). Everything panics with what it saw: it is for tests only.

mod http;
mod in_process;
mod process;

use std::time::{Duration, Instant};

pub use http::{Answer, Http};
pub use in_process::InProcess;
pub use process::{Process, binary};

/// How long a test waits for anything before it fails: far longer than anything takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives a value, and returns it. Panics with `what` after [`DEADLINE`].
pub fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain until {what}");
        // The pace of asking, not a guess at how long it takes.
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
