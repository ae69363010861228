//! PostgreSQL is gone, and later hangs, with every connection open. Meanwhile each request is answered in time, with 503
//! where it needs the database, and what needs none is answered as ever. Afterwards both services go on by themselves, and
//! nothing acknowledged is lost.
//!
//! What "in time" is: a try at anything is given up after five seconds (`postgres::DEADLINE`), and a write may
//! have to wait for another one that hangs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use account_events::{AccountId, AccountStatus};
use serde_json::{Value, json};
use test_harness::{Http, wait_until};
use uuid::Uuid;

use crate::cluster::{Cluster, Load, StopOnDrop, Writer, settle, under_load};
use crate::kafka::Isolation;
use crate::random::{Random, seed};
use crate::requests::{card_of, create_card};
use crate::servers::{self, Servers};

/// Within what a look-up in the database is answered: its deadline, and what a busy machine adds.
pub(super) const READ_BOUND: Duration = Duration::from_secs(7);

/// Within what a write is answered: its deadline, that of the one it waits for, and what a busy machine adds.
pub(super) const WRITE_BOUND: Duration = Duration::from_secs(12);

/// Within what is answered that needs no database, and this on a busy machine.
const LOOKUP_BOUND: Duration = Duration::from_secs(2);

/// How long the database hangs at least.
const HANG: Duration = Duration::from_secs(10);

/// The pause of a thread between two requests.
const PACE: Duration = Duration::from_millis(50);

/// A request that is made again and again.
pub(super) struct Probe {
    http: Http,
    method: &'static str,
    path: String,
    body: Value,
    /// What it is answered with while all is well.
    expected: u16,
    needs_database: bool,
    answered: AtomicUsize,
    refused: AtomicUsize,
}

#[test]
fn without_its_database_every_request_is_answered_in_time_and_all_goes_on_by_itself() {
    let Some((brokers, _)) = servers::shared() else { return };
    let Some(servers) = Servers::start("database-away", &["postgres"]) else { return };
    let mut random = Random::new(seed());
    let cluster = Cluster::start("database", (brokers, servers.postgres()), 2, 2);
    let mut writers: Vec<_> = (0..3).map(|_| Writer::new(random.next())).collect();
    // No request need be spent on finding out.
    servers.tell(&["stop", "postgres"]);
    wait_until_unready(&cluster);
    servers.tell(&["start", "postgres"]);
    wait_until_ready(&cluster);

    let mut probed = Writer::new(random.next());
    let probes = probes(&cluster, &mut probed);
    under_load(&cluster, &mut writers, PACE, |load| {
        while_probed(&probes, || {
            all_well(&cluster, &probes, load);
            for (trouble, back) in [("stop", "start"), ("pause", "resume")] {
                let begun = Instant::now();
                servers.tell(&[trouble, "postgres"]);
                all_refused(&cluster, &probes);
                let noticed = begun.elapsed();
                while trouble == "pause" && begun.elapsed() < HANG {
                    std::thread::park_timeout(PACE);
                }
                let ended = Instant::now();
                servers.tell(&[back, "postgres"]);
                all_well(&cluster, &probes, load);
                eprintln!("{trouble}: noticed by all in {noticed:?}, all well {:?} after {back}", ended.elapsed());
            }
        });
    });
    let slowest = writers.iter().map(|writer| writer.slowest).max().expect("there are some");
    let refused: usize = writers.iter().map(|writer| writer.refused.len()).sum();
    eprintln!("{refused} writes were refused, the slowest answer to one took {slowest:?}");
    assert!(writers.iter().all(|writer| writer.unanswered.is_empty()), "{:?}", writers[0].unanswered);
    assert!(slowest <= WRITE_BOUND, "a write was answered after {slowest:?}");

    settle(&cluster);
    let tables = cluster.tables();
    writers.push(probed);
    tables.check(&writers);
    tables.check_topic(&cluster.read_topic(Isolation::Committed));
    tables.check_views(&cluster, &mut random);
}

/// Requests of all kinds, to each instance, about accounts of `writer`.
pub(super) fn probes(cluster: &Cluster, writer: &mut Writer) -> Vec<Probe> {
    let accounts = cluster.accounts[0].http().expect("it is there");
    let cards = cluster.cards[0].http().expect("it is there");
    let mut create = || writer.create_account(&accounts).expect("all is well");
    let (active, blocked) = (create(), create());
    assert!(writer.change(&accounts, blocked, AccountStatus::Blocked), "all is well");
    let id = |place: usize| writer.accounts[place].id;
    let (active, blocked, unknown) = (id(active), id(blocked), AccountId(Uuid::nil()));
    let card = wait_until("it may have a card", || Some(create_card(&cards, active)).filter(|card| card.status == 201));
    let number = accounts.get(&format!("/account?id={active}")).expect(200)["account_number"].clone();
    let number = number.as_str().expect("a number");
    let mut probes = Vec::new();
    let mut add = |http: &Http, method, path: String, body, expected, needs_database| {
        // Connections of its own: it must not wait for those of others.
        let http = Http::new(http.address());
        let (answered, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        probes.push(Probe { http, method, path, body, expected, needs_database, answered, refused });
    };
    for http in cluster.accounts.iter().filter_map(|instance| instance.http()) {
        add(&http, "GET", format!("/account?id={active}"), Value::Null, 200, true);
        add(&http, "GET", format!("/accounts/by-number?account_number={number}"), Value::Null, 200, true);
        add(&http, "GET", "/accounts?limit=10".to_owned(), Value::Null, 200, true);
        add(&http, "GET", "/health".to_owned(), Value::Null, 200, false);
        // It changes nothing, but that is decided where changes are.
        add(&http, "PUT", format!("/account?id={unknown}"), json!({ "status": "ACTIVE" }), 404, true);
    }
    for instance in &cluster.cards {
        let http = instance.http().expect("it is there");
        wait_until("the view has the accounts", || {
            (create_card(&http, blocked).status == 403 && create_card(&http, active).status == 201).then_some(())
        });
        add(&http, "GET", format!("/card?id={}", card.text("id")), Value::Null, 200, true);
        add(&http, "GET", "/cards?limit=10".to_owned(), Value::Null, 200, true);
        add(&http, "GET", format!("/cards/by-account?account_id={active}"), Value::Null, 200, true);
        add(&http, "GET", "/health".to_owned(), Value::Null, 200, false);
        add(&http, "POST", "/card".to_owned(), card_of(active), 201, true);
        add(&http, "POST", "/card".to_owned(), card_of(blocked), 403, false);
        add(&http, "POST", "/card".to_owned(), card_of(unknown), 404, false);
    }
    probes
}

impl Probe {
    fn what(&self) -> String {
        format!("{} {} {} at {}", self.method, self.path, self.body, self.http.address())
    }

    fn bound(&self) -> Duration {
        match (self.needs_database, self.method) {
            (false, _) => LOOKUP_BOUND,
            (true, "GET") => READ_BOUND,
            (true, _) => WRITE_BOUND,
        }
    }

    fn ask(&self) {
        let headers = [("Content-Type", "application/json")];
        let body = if self.body.is_null() { Vec::new() } else { self.body.to_string().into_bytes() };
        let asked = Instant::now();
        let answer = self.http.try_send(self.method, &self.path, &headers, body);
        let took = asked.elapsed();
        let answer = answer.unwrap_or_else(|error| panic!("{}: no answer after {took:?}: {error}", self.what()));
        assert!(took <= self.bound(), "{}: {} after {took:?}", self.what(), answer.status);
        if answer.status == 503 && self.needs_database {
            assert_eq!(answer.text("code"), "storage_unavailable", "{}", self.what());
            assert_ne!(answer.header("retry-after"), "", "{}", self.what());
            self.refused.fetch_add(1, Ordering::Relaxed);
        } else {
            assert_eq!(answer.status, self.expected, "{}: {}", self.what(), answer.raw);
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Does `work` while each of `probes` asks, in a thread of its own.
pub(super) fn while_probed(probes: &[Probe], work: impl FnOnce()) {
    let stop = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stopped = StopOnDrop(stop);
        for probe in probes {
            scope.spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    probe.ask();
                    std::thread::park_timeout(PACE);
                }
            });
        }
        work();
    });
}

/// Waits until everything is answered as it should be.
pub(super) fn all_well(cluster: &Cluster, probes: &[Probe], load: &Load) {
    wait_until_ready(cluster);
    wait_for_more(probes, |probe| Some(&probe.answered));
    load.wait_for(20);
}

fn wait_until_ready(cluster: &Cluster) {
    for instance in cluster.all() {
        wait_until("the instance is ready", || (instance.readyz()["status"] == "ready").then_some(()));
    }
}

/// Waits until all that needs the database is refused, all else is still answered, and `/readyz` says why.
pub(super) fn all_refused(cluster: &Cluster, probes: &[Probe]) {
    wait_for_more(probes, |probe| probe.needs_database.then_some(&probe.refused));
    wait_for_more(probes, |probe| (!probe.needs_database).then_some(&probe.answered));
    wait_until_unready(cluster);
}

fn wait_until_unready(cluster: &Cluster) {
    for instance in cluster.all() {
        wait_until("the instance says that it is not ready", || {
            let readyz = instance.readyz();
            let why = readyz["error"].as_str().unwrap_or_default();
            (readyz["status"] == "not_ready" && why.contains("the database is unavailable")).then_some(())
        });
    }
}

/// Waits until what `counter` gives, if anything, has grown for all of `probes`.
fn wait_for_more(probes: &[Probe], counter: impl Fn(&Probe) -> Option<&AtomicUsize>) {
    let value = |probe| counter(probe).map(|counter| counter.load(Ordering::Relaxed));
    let before: Vec<_> = probes.iter().map(value).collect();
    for (probe, before) in probes.iter().zip(before) {
        wait_until(&probe.what(), || (before.is_none() || value(probe) > before).then_some(()));
    }
}
