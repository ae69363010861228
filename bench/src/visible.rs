//! How soon after `POST /account` is answered a card can be created for the account.
//!
//! Accounts are created on a fixed schedule. For a sample of them, the thread that has received the answer sends `POST /card` until
//! it is answered with 201. The time counts from the answer for the account until the `POST /card` that succeeded was sent. It is
//! 0 where the first attempt succeeds.
//!
//! For every second account of the sample, the thread sends one `POST /card` with `Prefer: wait`, and then one without. The wait that the
//! preference adds is the difference between their latencies.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::load::{self, Connection, Schedule};
use crate::peers::kafka;
use crate::results::{Of, Results, Unit, grouped};
use crate::servers::Servers;
use crate::system::{ACCOUNT, System, accounts_in_view};

/// Rounds, of which the medians are given.
const ROUNDS: usize = 5;
/// How long a round takes, in seconds, the first of which is not counted.
const SECONDS: u32 = 5;
/// Connections of the schedule. Those that wait for a card send no other account meanwhile.
const CONNECTIONS: usize = 64;
/// Accounts a second that a card is created for: enough for a p99, few enough to cost nothing.
const SAMPLES: u32 = 200;
/// How long the rate at saturation is measured.
const SATURATING: Duration = Duration::from_secs(3);
/// How long the view may take.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Accounts a second that leave the machine idle most of the time.
const QUIET: u32 = 500;
/// Accounts a second on Kafka and PostgreSQL.
const ON_SERVERS: u32 = 1_000;

/// On SQLite and the embedded log: at [`QUIET`], and at half of the rate that 64 connections reach.
pub(crate) fn embedded(systems: &[System], quick: bool) -> anyhow::Result<Results> {
    let mut slowest = f64::INFINITY;
    for system in systems {
        slowest = slowest.min(saturate(system, SATURATING)?);
    }
    let mut results = Results::default();
    for rate in [QUIET, load::half_of(slowest)] {
        for round in 1..=rounds(quick) {
            println!("{rate} accounts a second: round {round} of {}", rounds(quick));
            systems.iter().try_for_each(|system| measure(&mut results, system, rate))?;
        }
    }
    Ok(results)
}

/// On PostgreSQL and Kafka at [`ON_SERVERS`], beside a bare producer and consumer with the same records.
pub(crate) fn on_servers(
    systems: &[System],
    servers: Option<&Servers>,
    warm_up: Duration,
    quick: bool,
) -> anyhow::Result<Results> {
    for system in systems {
        saturate(system, warm_up)?;
    }
    let mut results = Results::default();
    for round in 1..=rounds(quick) {
        println!("{ON_SERVERS} accounts a second: round {round} of {}", rounds(quick));
        systems.iter().try_for_each(|system| measure(&mut results, system, ON_SERVERS))?;
        if let Some(servers) = servers {
            let bare = kafka::latency(servers, schedule(ON_SERVERS))?;
            for (quantile, name) in QUANTILES {
                let value = load::milliseconds(&bare, quantile);
                results.add(&row(ON_SERVERS, name), Unit::Milliseconds, Of::Other(kafka::NAME), value);
            }
        }
    }
    Ok(results)
}

const QUANTILES: [(f64, &str); 2] = [(0.5, "p50"), (0.99, "p99")];

fn rounds(quick: bool) -> usize {
    if quick { 1 } else { ROUNDS }
}

fn schedule(rate: u32) -> Schedule {
    Schedule { rate, seconds: SECONDS, connections: CONNECTIONS }
}

fn row(rate: u32, quantile: &str) -> String {
    format!("{} accounts/s: answer to visible, {quantile}", grouped(rate))
}

/// The accounts a second that [`CONNECTIONS`] reach.
fn saturate(system: &System, time: Duration) -> anyhow::Result<f64> {
    Ok(system.keep_busy("/account", &load::post("/account", ACCOUNT).into(), CONNECTIONS, time)?.rate())
}

fn measure(results: &mut Results, system: &System, rate: u32) -> anyhow::Result<()> {
    let before = accounts_in_view(&test_harness::Http::new(system.cards));
    let request = load::post("/account", ACCOUNT);
    let [visible, added] = [(); 2].map(|()| Mutex::new(load::new_histogram()));
    let schedule = schedule(rate);
    // A connection for each thread that waits for a card, opened before it is needed.
    let connections = (0..CONNECTIONS).map(|_| Connection::open(system.cards)).collect::<Result<Vec<_>, _>>()?;
    let connections = Mutex::new(connections);
    let every = u64::from(rate.div_ceil(SAMPLES));
    let answered = load::open_loop(
        system.accounts,
        schedule,
        |_| &request[..],
        |number, body| {
            if !number.is_multiple_of(every) {
                return Ok(());
            }
            let Some(mut cards) = lock(&connections).pop() else { return Ok(()) };
            let account = load::id_in(body)?;
            if (number / every).is_multiple_of(2) {
                lock(&visible).record(load::micros(until_card(&mut cards, account)?))?;
            } else {
                lock(&added).record(load::micros(added_wait(&mut cards, account)?))?;
            }
            lock(&connections).push(cards);
            Ok(())
        },
    )?;
    for (quantile, name) in QUANTILES {
        let visible = load::milliseconds(&lock(&visible), quantile);
        results.add(&row(rate, name), Unit::Milliseconds, system.of, visible);
    }
    for (quantile, name) in QUANTILES {
        let what = format!("{} accounts/s: wait added by Prefer: wait, {name}", grouped(rate));
        results.add(&what, Unit::Milliseconds, system.of, load::milliseconds(&lock(&added), quantile));
    }
    for (quantile, name) in QUANTILES {
        let what = format!("{} accounts/s: request to answer, {name}", grouped(rate));
        results.add(&what, Unit::Milliseconds, system.of, load::milliseconds(&answered, quantile));
    }
    system.wait_for_view(before + schedule.count())
}

/// Sends `POST /card` until the account is found. Returns the time until the successful one was sent.
fn until_card(cards: &mut Connection, account: &str) -> anyhow::Result<Duration> {
    let request = load::post("/card", &format!(r#"{{"country":"US","account_id":"{account}"}}"#));
    let answered = Instant::now();
    loop {
        let waited = answered.elapsed();
        match cards.exchange(&request)? {
            (201, _) => return Ok(waited),
            (404, _) => ensure!(waited < VISIBLE_TIMEOUT, "account {account} is not visible after {waited:?}"),
            (status, body) => anyhow::bail!("POST /card answered {status}: {}", String::from_utf8_lossy(body)),
        }
    }
}

/// Sends `POST /card` with `Prefer: wait` and then without. Returns how much longer the first one took.
fn added_wait(cards: &mut Connection, account: &str) -> anyhow::Result<Duration> {
    let body = format!(r#"{{"country":"US","account_id":"{account}"}}"#);
    let mut took = [Duration::ZERO; 2];
    for (took, header) in took.iter_mut().zip(["Prefer: wait=10\r\n", ""]) {
        let (request, sent) = (load::post_with("/card", header, &body), Instant::now());
        let (status, body) = cards.exchange(&request)?;
        ensure!(status == 201, "POST /card answered {status}: {}", String::from_utf8_lossy(body));
        *took = sent.elapsed();
    }
    Ok(took[0].saturating_sub(took[1]))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
