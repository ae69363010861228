//! What the tests of several crates share: an HTTP client that takes every answer as it is ([`Http`]), processes to start,
//! stop and kill ([`Process`]), services inside the test's own process ([`InProcess`]),
//! whose answers are compared with their OpenAPI document ([`OpenApi`]), databases and event logs where the
//! environment says ([`database_url`], [`open_event_log`]), credentials ([`KeysFile`], [`Issuer`]), many callers at once
//! ([`at_once`]), and waiting for a condition with a deadline ([`wait_until`]). Everything panics with what it saw: it is for tests only.

mod callers;
mod credentials;
mod database;
mod event_log;
mod event_stream;
mod http;
mod in_process;
mod mangled;
mod openapi;
mod process;
mod schema;

use std::sync::Barrier;
use std::time::{Duration, Instant};

pub use callers::{callers, key_of};
pub use credentials::{Issuer, KeysFile, SigningKey, hmac_token, unix_seconds, unsigned_token};
pub use database::{POSTGRES_URL, copy_database, database_url, postgres_database, with_postgres};
pub use event_log::{KAFKA_BROKERS, forget_event_log, make_topic_that_deletes, open_event_log, unique_name};
pub use event_stream::{EventBlock, EventStream};
pub use http::{Answer, Http};
pub use in_process::InProcess;
pub use mangled::{mangled, mangled_text};
pub use openapi::OpenApi;
pub use process::{Process, binary, output_of};
pub use schema::schema_violation;

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
        // The pace of asking, not a guess at how long it takes. What is timed by it is longer by no more than a twentieth, from 2 ms
        // on, and by what asking takes.
        let pause = started.elapsed() / 20;
        std::thread::park_timeout(pause.clamp(Duration::from_micros(100), Duration::from_millis(2)));
    }
}

/// Runs `work` in as many threads at once, each with its number and a client of its own of the service that `http` asks,
/// and gathers what they give.
pub fn at_once<T: Send>(threads: usize, http: &Http, work: impl Fn(usize, &Http) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(threads);
    let run = |thread| {
        let http = Http::new(http.address());
        barrier.wait();
        work(thread, &http)
    };
    std::thread::scope(|scope| {
        let run = &run;
        let handles: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        handles.into_iter().map(|handle| handle.join().expect("a thread that does not panic")).collect()
    })
}
