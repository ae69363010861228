//! How many accounts a second the account service commits on PostgreSQL, beside what [`Pgbench`] makes of the same server.
//!
//! The service is a process of its own, with its relay publishing to Kafka. 64 connections are kept busy from here; generator,
//! service, database and broker share the machine, so the processor time of the first two is given too. Service and peer
//! take turns, each on a database of its own, so that whatever else the machine and its disk do meets both; the share is
//! the median of the turns' own shares, and the disk is measured at each turn.

use std::time::Duration;

use anyhow::ensure;
use database::postgres::Parameter;
use test_harness::{Http, Process, binary, postgres_database, with_postgres};
use tokio_postgres::Row;

use crate::figure::{Figure, Unit};
use crate::load::{self, Busy, Request};
use crate::machine::{processor_time, sync_rate};
use crate::pgbench::Pgbench;
use crate::servers::Servers;
use crate::turns::median;
use crate::{ACCOUNT, builds};

/// By one thread: the generator is to leave as much of the machine to the service as it can.
const BUSY: Busy = Busy { connections: 64, threads: 1, lasting: TURN };

/// Turns of each, of which the medians are given.
const ROUNDS: usize = 5;

/// How long a turn takes.
const TURN: Duration = Duration::from_secs(5);

/// How long the service is busy before the first. A broker that has just been started takes a core to compile its code meanwhile.
const WARM_UP: Duration = Duration::from_secs(30);

/// Connections of pgbench beside the one. All of them update the one row of the ledger, so it depends on what a sync costs
/// whether they reach more together.
const MORE_CLIENTS: u32 = 4;

/// What a turn of each came to.
struct Round {
    rate: f64,
    batch: f64,
    generator_micros: f64,
    service_micros: f64,
    peer: f64,
    peer_with_more: f64,
    syncs: f64,
}

pub(crate) fn measure(servers: &Servers) -> anyhow::Result<Vec<Figure>> {
    builds::build(account_service::NAME)?;
    let (ours, peers) = (postgres_database(&servers.postgres), postgres_database(&servers.postgres));
    // Its migrations make the tables.
    start(servers, &peers)?.terminate();
    let pgbench = Pgbench::new(peers)?;
    let mut service = start(servers, &ours)?;
    let accounts = service.ready_service(account_service::NAME);
    println!("warming up for {} s", WARM_UP.as_secs());
    let warm_up = Busy { lasting: WARM_UP, ..BUSY };
    load::closed_loop(accounts.address(), &Request::post("/account", ACCOUNT), warm_up)?;
    let mut rounds = Vec::new();
    for number in 1..=ROUNDS {
        println!(
            "accounts on PostgreSQL with {} connections, and pgbench: turn {number} of {ROUNDS}",
            BUSY.connections
        );
        rounds.push(round(&accounts, service.id(), &ours, &pgbench)?);
    }
    service.terminate();
    Ok(figures(&rounds))
}

fn start(servers: &Servers, database: &str) -> anyhow::Result<Process> {
    let folder = tempfile::tempdir()?;
    let topic = servers.topic_name("accounts");
    let settings = [("KAFKA_BROKERS", &*servers.brokers), ("KAFKA_TOPIC", &topic), ("DATABASE_URL", database)];
    let mut process = Process::start(&binary(account_service::NAME), folder.path(), &settings);
    process.ready_service(account_service::NAME);
    Ok(process)
}

fn round(accounts: &Http, service: u32, database: &str, pgbench: &Pgbench) -> anyhow::Result<Round> {
    settle(database);
    let before = last_sequence(database);
    let used = || anyhow::Ok((processor_time(std::process::id())?, processor_time(service)?));
    let (generator_before, service_before) = used()?;
    let tally = load::closed_loop(accounts.address(), &Request::post("/account", ACCOUNT), BUSY)?;
    let (generator_after, service_after) = used()?;
    ensure!(tally.errors == 0, "{} of the requests failed", tally.errors);
    let requests = tally.latencies.len() as f64;
    let batch = rows_a_transaction(database, before);
    let micros = |used: Duration| used.as_secs_f64() * 1_000_000.0 / requests;

    settle(database);
    let size = batch.round() as u32;
    Ok(Round {
        rate: tally.rate(),
        batch,
        generator_micros: micros(generator_after - generator_before),
        service_micros: micros(service_after - service_before),
        peer: pgbench.rows_a_second(size, 1, TURN)?,
        peer_with_more: pgbench.rows_a_second(size, MORE_CLIENTS, TURN)?,
        syncs: sync_rate()?,
    })
}

/// Waits until the relay has published all, and has the server write what it has in memory: a turn begins with nothing of the last.
fn settle(database: &str) {
    test_harness::wait_until("the outbox is empty", || {
        let row = one_row(database, "SELECT count(*) FROM account.outbox", &[]);
        (row.get::<_, i64>(0) == 0).then_some(())
    });
    with_postgres(database, async |client| client.batch_execute("CHECKPOINT").await);
}

fn last_sequence(database: &str) -> i64 {
    one_row(database, "SELECT last_value FROM account.account_sequence", &[]).get(0)
}

/// All accounts of a transaction carry its one time, which is how they are told apart.
fn rows_a_transaction(database: &str, behind: i64) -> f64 {
    let sql = "SELECT count(*), count(DISTINCT created_at) FROM account.accounts WHERE sequence > $1";
    let row = one_row(database, sql, &[&behind]);
    row.get::<_, i64>(0) as f64 / row.get::<_, i64>(1).max(1) as f64
}

fn one_row(database: &str, sql: &str, parameters: &[Parameter<'_>]) -> Row {
    with_postgres(database, async |client| client.query_one(sql, parameters).await)
}

fn figures(rounds: &[Round]) -> Vec<Figure> {
    let middle = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
    let figure = |what, value, unit| Figure::new(what, middle(value), unit);
    let (share, peer) = (middle(|round| round.rate / round.peer), middle(|round| round.peer));
    vec![
        figure("durable POST /account, PostgreSQL, 64 connections", |round| round.rate, Unit::PerSecond)
            .against_with_ratio("pgbench, the same rows in such batches", peer, share)
            .at_least(0.5),
        figure("  accounts a transaction", |round| round.batch, Unit::Count),
        figure("  account-service's processor time a request", |round| round.service_micros, Unit::Microseconds),
        figure("  generator's processor time a request", |round| round.generator_micros, Unit::Microseconds),
        figure("  pgbench with 4 connections", |round| round.peer_with_more, Unit::PerSecond),
        figure("  4 KiB written and synced, at the same turns", |round| round.syncs, Unit::PerSecond),
    ]
}
