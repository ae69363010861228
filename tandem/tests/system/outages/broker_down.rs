//! The one broker is killed and stays away for a minute, while accounts are created at a steady rate: no request fails,
//! and soon after it is back nothing waits any more (ARCHITECTURE.md A2).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use test_harness::{postgres_database, wait_until};

use crate::cluster::{Cluster, StopOnDrop, count};
use crate::keep_alive::KeepAlive;
use crate::requests::john_doe;
use crate::servers::{self, Servers, wait_for_broker};

/// Accounts a second. They come when they are due, however slow the answers are.
const RATE: u32 = 500;

/// Connections that they come over: with answers slower than 64 ms they would come late, which shows in the figures.
const CONNECTIONS: usize = 32;

/// How long all is well before the broker is killed, and goes on once it is back.
const WELL: Duration = Duration::from_secs(5);

/// How long the broker is away.
const AWAY: Duration = Duration::from_secs(60);

/// Of the requests that were due, so many must have been made: with fewer it would be another load.
const LEAST_MADE: f64 = 0.95;

/// Of the events of the time without the broker, so many must have waited at its end.
const LEAST_WAITING: f64 = 0.9;

/// How long until nothing waits any more: the bound that was set.
const BACKLOG_GONE: Duration = Duration::from_secs(30);

/// What came of the requests: how long after it was due each was answered.
#[derive(Default)]
struct Answers {
    late: Vec<Duration>,
    failed: Vec<String>,
    /// For how long requests were made.
    time: Duration,
}

#[test]
fn a_minute_without_the_broker_fails_no_request_and_the_backlog_is_soon_gone() {
    let Some((_, server)) = servers::shared() else { return };
    let Some(servers) = Servers::start("broker-down", &["kafka"]) else { return };
    let cluster = Cluster::start("broker-down", (servers.brokers(), postgres_database(&server)), 2, 1);
    let (mut gone, mut away, mut longest_backlog) = (Duration::ZERO, Duration::ZERO, 0);
    let answers = at_a_steady_rate(&cluster, || {
        std::thread::park_timeout(WELL);
        let killed = Instant::now();
        servers.tell(&["stop", "kafka-1"]);
        while killed.elapsed() < AWAY {
            std::thread::park_timeout(AWAY.saturating_sub(killed.elapsed()));
        }
        (away, longest_backlog) = (killed.elapsed(), waiting(&cluster));
        let started = Instant::now();
        servers.tell(&["start", "kafka-1"]);
        let back = wait_for_broker(&servers.brokers());
        eprintln!("broker away for {AWAY:?} and {:?} of its start", back - started);
        wait_until("what waited is published", || (waiting(&cluster) < i64::from(RATE)).then_some(()));
        eprintln!("{longest_backlog} events waited, less than a second's {:?} after it was back", back.elapsed());
        std::thread::park_timeout(WELL);
        back
    });
    let (answers, back) = answers;
    let requests = answers.late.len();
    wait_until("the outbox is empty", || (waiting(&cluster) == 0).then_some(()));
    for instance in &cluster.accounts {
        wait_until("the relay says so too", || (instance.readyz()["relay"]["waiting"] == 0).then_some(()));
    }
    let accounts = count(&cluster.database, "SELECT count(*) FROM account.accounts");
    wait_until("the view has every account", || {
        (cluster.cards[0].readyz()["view"]["accounts"].as_i64() == Some(accounts)).then_some(())
    });
    gone += back.elapsed();
    let mut late = answers.late;
    late.sort();
    let at = |share: f64| late[((requests - 1) as f64 * share) as usize];
    eprintln!("{requests} requests at {RATE}/s: p50 {:?}, p99 {:?}, slowest {:?}", at(0.5), at(0.99), at(1.0));
    eprintln!("backlog gone {gone:?} after the broker was back, of which {WELL:?} under load");
    assert!(answers.failed.is_empty(), "{} failed: {:?}", answers.failed.len(), answers.failed.first());
    assert_eq!(accounts, requests as i64, "each request made one account");
    let rate = requests as f64 / answers.time.as_secs_f64();
    assert!(rate >= LEAST_MADE * f64::from(RATE), "{rate:.0} requests a second");
    let waited = longest_backlog as f64 / away.as_secs_f64();
    assert!(waited >= LEAST_WAITING * f64::from(RATE), "{longest_backlog} events waited after {away:?}");
    assert!(gone <= BACKLOG_GONE, "backlog gone {gone:?} after the broker was back");
}

fn waiting(cluster: &Cluster) -> i64 {
    count(&cluster.database, "SELECT count(*) FROM account.outbox")
}

/// Creates accounts at [`RATE`] while `work` is done.
fn at_a_steady_rate<T>(cluster: &Cluster, work: impl FnOnce() -> T) -> (Answers, T) {
    let (started, next, stop) = (Instant::now(), &AtomicUsize::new(0), &AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _stopped = StopOnDrop(stop);
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let instance = &cluster.accounts[number % cluster.accounts.len()];
                scope.spawn(move || {
                    let address = instance.http().expect("it is there").address();
                    let mut connection = KeepAlive::connect(address).expect("a connection");
                    let (mut answers, body) = (Answers::default(), john_doe().to_string());
                    while !stop.load(Ordering::Acquire) {
                        let due = started + next.fetch_add(1, Ordering::Relaxed) as u32 * Duration::from_secs(1) / RATE;
                        while let Some(early) = due.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
                            std::thread::park_timeout(early);
                        }
                        match connection.post("/account", &body) {
                            Ok((201, _)) => {}
                            Ok((status, body)) => answers.failed.push(format!("{status} {body}")),
                            Err(error) => {
                                answers.failed.push(error.to_string());
                                connection = KeepAlive::connect(address).expect("a connection");
                            }
                        }
                        answers.late.push(due.elapsed());
                    }
                    answers
                })
            })
            .collect();
        let done = work();
        stop.store(true, Ordering::Release);
        let mut all = Answers { time: started.elapsed(), ..Answers::default() };
        for thread in threads {
            let answers = thread.join().expect("a thread that does not panic");
            all.late.extend(answers.late);
            all.failed.extend(answers.failed);
        }
        (all, done)
    })
}
