//! Accounts and cards a second at saturation with 64 and 512 connections, without and with idempotency keys, and the latency at half
//! of the rate without.
//!
//! The builds and the peer take turns, so that whatever else the machine does affects all of them. The load generator shares the
//! cores with the services.

use std::rc::Rc;
use std::time::Duration;

use crate::load::{self, Schedule};
use crate::peers::Peer;
use crate::results::{Of, Results, Unit, grouped, median};
use crate::system::{ACCOUNT, System, accounts_in_view};

/// Rounds, of which the medians are given.
const ROUNDS: usize = 5;
/// How long a turn at saturation takes.
const TURN: Duration = Duration::from_secs(3);
/// How long a turn at half of saturation takes, in seconds, the first of which is not counted.
const LATENCY_SECONDS: u32 = 4;

const CONNECTIONS: [usize; 2] = [64, 512];

/// Measures all `systems`. `peer` is what the same machine does with the same rows and without the services.
/// The systems create accounts for `warm_up` before that.
pub(crate) fn measure(
    systems: &[System],
    peer: Option<&dyn Peer>,
    warm_up: Duration,
    quick: bool,
) -> anyhow::Result<Results> {
    let mut results = Results::default();
    let rounds = if quick { 1 } else { ROUNDS };
    for system in systems {
        system.keep_busy("/account", &load::post("/account", ACCOUNT).into(), CONNECTIONS[0], warm_up)?;
    }
    let holders = systems.iter().map(holder).collect::<anyhow::Result<Vec<_>>>()?;
    for path in ["/account", "/card"] {
        let requests: Vec<Rc<[u8]>> =
            holders.iter().map(|holder| load::post(path, &body(path, holder)).into()).collect();
        let mut slowest = f64::INFINITY;
        for connections in CONNECTIONS {
            let what = format!("POST {path}, {connections} connections");
            let mut rates = vec![Vec::new(); systems.len()];
            for round in 1..=rounds {
                println!("{what}: round {round} of {rounds}");
                for turn in in_turn(systems.len(), round) {
                    rates[turn].push(saturate(
                        &mut results,
                        &what,
                        &systems[turn],
                        path,
                        &requests[turn],
                        connections,
                    )?);
                    let keyed = systems[turn].keep_busy_with_keys(path, &requests[turn], connections, TURN)?;
                    results.add(&format!("{what}, with keys"), Unit::PerSecond, systems[turn].of, keyed.rate());
                }
                // A peer has no second process to take its requests, so it is beside the fewer connections.
                if let Some(peer) = peer.filter(|_| connections == CONNECTIONS[0]) {
                    results.add(&what, Unit::PerSecond, Of::Other(peer.name()), peer.rate(path, TURN)?);
                }
            }
            if connections == CONNECTIONS[0] {
                slowest = rates.iter().map(|rates| median(rates)).fold(slowest, f64::min);
            }
        }
        let rate = load::half_of(slowest);
        let schedule = Schedule { rate, seconds: LATENCY_SECONDS, connections: CONNECTIONS[0] };
        for round in 1..=rounds {
            println!("POST {path} at {rate}/s: round {round} of {rounds}");
            for turn in in_turn(systems.len(), round) {
                latency(&mut results, &systems[turn], path, &requests[turn], schedule)?;
            }
        }
    }
    Ok(results)
}

/// The order of one round, which is reversed in each second one.
fn in_turn(count: usize, round: usize) -> Vec<usize> {
    match round.is_multiple_of(2) {
        true => (0..count).rev().collect(),
        false => (0..count).collect(),
    }
}

fn body(path: &str, holder: &str) -> String {
    match path {
        "/account" => ACCOUNT.to_owned(),
        _ => format!(r#"{{"country":"US","account_id":"{holder}"}}"#),
    }
}

/// The id of a new account that the view has: the holder of all cards.
fn holder(system: &System) -> anyhow::Result<String> {
    let ids = load::Collected::default();
    let collect = Rc::clone(&ids);
    system.create_accounts(1, move |body| collect.borrow_mut().extend(load::id_in(body).map(str::to_owned)))?;
    Ok(ids.take().concat())
}

/// One turn at saturation. Returns the rate.
fn saturate(
    results: &mut Results,
    what: &str,
    system: &System,
    path: &str,
    request: &Rc<[u8]>,
    connections: usize,
) -> anyhow::Result<f64> {
    let before = system.processor_time()?;
    let answers = system.keep_busy(path, request, connections, TURN)?;
    let used = (system.processor_time()? - before).as_secs_f64() * 1e6 / answers.count as f64;
    results.add(what, Unit::PerSecond, system.of, answers.rate());
    results.add(&format!("{what}: processor time each"), Unit::Microseconds, system.of, used);
    Ok(answers.rate())
}

fn latency(
    results: &mut Results,
    system: &System,
    path: &str,
    request: &Rc<[u8]>,
    schedule: Schedule,
) -> anyhow::Result<()> {
    let cards = test_harness::Http::new(system.cards);
    let accounts_before = accounts_in_view(&cards);
    let request: &[u8] = request;
    let latencies = load::open_loop(system.address(path), schedule, |_| request, |_, _| Ok(()))?;
    for (quantile, name) in [(0.5, "p50"), (0.99, "p99")] {
        let what = format!("POST {path} at {}/s: latency {name}", grouped(schedule.rate));
        results.add(&what, Unit::Milliseconds, system.of, load::milliseconds(&latencies, quantile));
    }
    if path == "/account" {
        system.wait_for_view(accounts_before + schedule.count())?;
    }
    Ok(())
}
