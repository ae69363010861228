//! How many accounts and cards a second the services commit on PostgreSQL, beside the limit: the lesser of what [`Pgbench`]
//! makes of the same server, and of the same POST with the database left out; and beside `GET /health`.
//!
//! Accounts are made by the account service alone, a process of its own whose relay publishes to Kafka; cards by a card service
//! beside an idle account service. Connections are kept busy from here; generator, services, database and broker share the machine, so
//! the processor time of generator and service is given too. All take turns, each on a database of its own, so that whatever else the
//! machine and its disk do meets all of them; a ratio is the median of the turns' own ratios, and the disk is measured at each turn.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use test_harness::{Process, binary, postgres_database, wait_until, with_postgres};

use crate::figure::{Figure, Unit};
use crate::load::{self, Busy, Request, Tally};
use crate::machine::{processor_time, sync_rate};
use crate::pgbench::{Pgbench, Rows, one_row};
use crate::saturation::Server;
use crate::servers::Servers;
use crate::turns::Turns;
use crate::{ACCOUNT, builds};

/// Connections that are kept busy.
const CONNECTIONS: [usize; 2] = [64, 512];

/// Turns of each, of which the medians are given.
const TURNS: usize = 5;

/// How long a turn takes.
const TURN: Duration = Duration::from_secs(3);

/// How long the account service is busy before the first. A broker that has just been started takes a core to compile its code
/// meanwhile.
const WARM_UP: Duration = Duration::from_secs(30);

/// Connections of pgbench beside the one. All of them update the one row of the ledger, so it depends on what a sync costs
/// whether they reach more together.
const MORE_CLIENTS: u32 = 4;

/// The service that is kept busy.
struct Busied {
    rows: Rows,
    database: String,
    address: SocketAddr,
    path: &'static str,
    /// What it is asked, again and again.
    request: Request,
    process: Process,
    _idle: Option<Process>,
}

/// What a turn of each came to.
struct Turn {
    rate: f64,
    batch: f64,
    generator_micros: f64,
    service_micros: f64,
    health: f64,
    health_micros: f64,
    no_database: f64,
    peer: f64,
    peer_with_more: f64,
    syncs: f64,
}

pub(crate) fn measure(servers: &Servers, quick: bool) -> anyhow::Result<Vec<Figure>> {
    println!("building the services, and the all-in-one without a database");
    builds::build(account_service::NAME)?;
    builds::build(card_service::NAME)?;
    let folder = tempfile::tempdir()?;
    let mut no_database = Server::without_a_database(folder.path())?;
    let pgbench = Pgbench::new(servers)?;
    let (count, mut figures) = (if quick { 1 } else { TURNS }, Vec::new());
    for rows in [Rows::Accounts, Rows::Cards] {
        let mut service = Busied::start(servers, rows)?;
        let warm_up = if quick || rows == Rows::Cards { TURN } else { WARM_UP };
        println!("warming up for {} s", warm_up.as_secs());
        service.keep_busy(&service.request, CONNECTIONS[0], warm_up)?;
        for connections in CONNECTIONS {
            let mut turns = Vec::new();
            for number in 1..=count {
                println!("{rows:?} on PostgreSQL, {connections} connections, and pgbench: turn {number} of {count}");
                turns.push(service.turn(connections, &pgbench, &mut no_database)?);
            }
            figures.extend(lines(rows, connections, &turns));
        }
        service.process.terminate();
    }
    Ok(figures)
}

impl Busied {
    /// Starts it on a database and a topic of its own, for cards with an account that they are made for.
    fn start(servers: &Servers, rows: Rows) -> anyhow::Result<Self> {
        let (database, topic) = (postgres_database(&servers.postgres), servers.topic_name(&format!("{rows:?}")));
        let settings = [("KAFKA_BROKERS", &*servers.brokers), ("KAFKA_TOPIC", &topic), ("DATABASE_URL", &database)];
        let start = |name: &str| {
            let folder = tempfile::tempdir()?;
            let mut process = Process::start(&binary(name), folder.path(), &settings);
            let http = process.ready_service(name);
            anyhow::Ok((process, http))
        };
        let (account_process, accounts) = start(account_service::NAME)?;
        let (process, address, path, body, idle) = match rows {
            Rows::Accounts => (account_process, accounts.address(), "/account", ACCOUNT.to_owned(), None),
            Rows::Cards => {
                let account = accounts.post("/account", &serde_json::from_str(ACCOUNT)?).expect(201);
                let body = json!({"account_id": account["id"], "country": "US"});
                let (process, cards) = start(card_service::NAME)?;
                wait_until("the view has the account", || (cards.post("/card", &body).status == 201).then_some(()));
                (process, cards.address(), "/card", body.to_string(), Some(account_process))
            }
        };
        let request = Request::post(path, &body);
        Ok(Busied { rows, database, address, path, request, process, _idle: idle })
    }

    fn turn(&self, connections: usize, pgbench: &Pgbench, no_database: &mut Server) -> anyhow::Result<Turn> {
        settle(&self.database);
        let before = self.rows.last(&self.database);
        let (tally, service_micros) = self.keep_busy(&self.request, connections, TURN)?;
        let batch = self.rows.a_transaction(&self.database, before);

        settle(&self.database);
        let (health, health_micros) = self.keep_busy(&Request::get("/health"), connections, TURN)?;
        let size = batch.round() as u32;
        Ok(Turn {
            rate: tally.rate(),
            batch,
            generator_micros: tally.micros_a_request(tally.processor_time),
            service_micros,
            health: health.rate(),
            health_micros,
            no_database: no_database.post(self.path, connections)?.rate,
            peer: pgbench.rows_a_second(self.rows, size, 1, TURN)?,
            peer_with_more: pgbench.rows_a_second(self.rows, size, MORE_CLIENTS, TURN)?,
            syncs: sync_rate()?,
        })
    }

    /// By one thread: the generator is to leave as much of the machine to the service as it can.
    /// Gives the service's processor time a request, too.
    fn keep_busy(&self, request: &Request, connections: usize, lasting: Duration) -> anyhow::Result<(Tally, f64)> {
        let before = processor_time(self.process.id())?;
        let tally = load::closed_loop(self.address, request, Busy { connections, threads: 1, lasting })?;
        ensure!(tally.errors == 0, "{} of the requests failed", tally.errors);
        let micros = tally.micros_a_request(processor_time(self.process.id())? - before);
        Ok((tally, micros))
    }
}

/// Waits until the relay has published all, and has the server write what it has in memory: a turn begins with nothing of the last.
fn settle(database: &str) {
    wait_until("the outbox is empty", || {
        let row = one_row(database, "SELECT count(*) FROM account.outbox", &[]);
        (row.get::<_, i64>(0) == 0).then_some(())
    });
    with_postgres(database, async |client| client.batch_execute("CHECKPOINT").await);
}

fn lines(rows: Rows, connections: usize, turns: &[Turn]) -> Vec<Figure> {
    let turns = Turns(turns);
    let (path, many, service) = match rows {
        Rows::Accounts => ("/account", "accounts", account_service::NAME),
        Rows::Cards => ("/card", "cards", card_service::NAME),
    };
    let of_health = |what: &str, unit, ours: fn(&Turn) -> f64, theirs: fn(&Turn) -> f64| {
        turns.compared(what, unit, ours, "GET /health", theirs)
    };
    let health = of_health("  against GET /health", Unit::PerSecond, |turn| turn.rate, |turn| turn.health);
    let time = format!("  {service}'s processor time a request");
    let time = of_health(&time, Unit::Microseconds, |turn| turn.service_micros, |turn| turn.health_micros);
    let per_second = |what: &str, value: fn(&Turn) -> f64| turns.figure(what, Unit::PerSecond, value);
    vec![
        turns
            .compared(
                format!("durable POST {path}, PostgreSQL, {connections} connections"),
                Unit::PerSecond,
                |turn| turn.rate,
                "pgbench, or no database",
                |turn| turn.peer.min(turn.no_database),
            )
            .at_least(0.8),
        per_second("  pgbench, the same rows in such batches", |turn| turn.peer),
        per_second("  pgbench with 4 connections", |turn| turn.peer_with_more),
        per_second("  no database", |turn| turn.no_database),
        turns.figure(format!("  {many} a transaction"), Unit::Count, |turn| turn.batch),
        if connections >= 512 { health.at_least(0.5) } else { health },
        time.at_most(2.2),
        turns.figure("  generator's processor time a request", Unit::Microseconds, |turn| turn.generator_micros),
        per_second("  raw syncs at the same turns", |turn| turn.syncs),
    ]
}
