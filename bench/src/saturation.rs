//! How many accounts and cards a second the all-in-one commits on SQLite, relay and feed running, beside what it would do without
//! a database, what the disk allows, and `GET /health`.
//!
//! Without a database the writer decides each batch and answers, and writes nothing: what is left is HTTP, JSON and the way to the
//! writer and back. Without a relay the events stay in the outbox. Both are builds of the same code with a feature that nothing
//! else uses. All take turns, so that whatever else the machine does meets all of them; what is given is the median of the turns.
//! The generator runs on the same cores, which is why its processor time is given too.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tempfile::TempDir;
use test_harness::{Process, binary, wait_until};

use crate::figure::{Figure, Unit};
use crate::load::{self, Busy, Request};
use crate::machine::{processor_time, sync_rate};
use crate::turns::Turns;
use crate::{ACCOUNT, builds};

/// Turns of each.
const ROUNDS: usize = 5;

/// How long a turn takes.
const TURN: Duration = Duration::from_secs(3);

const CONNECTIONS: [usize; 2] = [64, 512];

/// Both services in one process, as one build of them makes it.
pub(crate) struct Server {
    process: Process,
    _folder: TempDir,
    account: String,
}

/// What a turn came to.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) rate: f64,
    server_micros: f64,
    generator_micros: f64,
}

/// The turns of one round, and what the disk did meanwhile.
struct Round {
    durable: Turn,
    no_database: Turn,
    /// Of accounts only: cards have none.
    no_relay: Option<Turn>,
    health: Turn,
    syncs: f64,
}

pub(crate) fn measure(quick: bool) -> anyhow::Result<Vec<Figure>> {
    let rounds = if quick { 1 } else { ROUNDS };
    let builds = tempfile::tempdir()?;
    let no_relay = builds.path().join("no-relay");
    println!("building the all-in-one three times");
    builds::build_variant("bench-no-relay", &no_relay)?;
    let no_database = Server::without_a_database(builds.path())?;
    let mut servers = [Server::start(&binary("tandem"))?, no_database, Server::start(&no_relay)?];
    let mut figures = Vec::new();
    for connections in CONNECTIONS {
        for path in ["/account", "/card"] {
            let mut measured = Vec::new();
            for number in 1..=rounds {
                println!("POST {path} with {connections} connections: turn {number} of {rounds}");
                measured.push(round(&mut servers, path, connections)?);
            }
            figures.extend(lines(path, connections, &measured));
        }
    }
    figures.extend(confirmed(&mut servers[0])?);
    Ok(figures)
}

impl Server {
    /// Builds the all-in-one without a database into `folder`, and as it is, and starts the former.
    pub(crate) fn without_a_database(folder: &Path) -> anyhow::Result<Self> {
        let binary = folder.join("no-database");
        builds::build_variant("bench-no-database", &binary)?;
        builds::build("tandem")?;
        Self::start(&binary)
    }

    /// The view of a build without a database would hear of no account, so one is made beforehand.
    fn start(tandem: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut usual = Process::start(&binary("tandem"), folder.path(), &[]);
        let made = usual.ready_service(account_service::NAME).post("/account", &serde_json::from_str(ACCOUNT)?);
        let account = made.expect(201)["id"].as_str().unwrap_or_default().to_owned();
        usual.terminate();
        let mut process = Process::start(tandem, folder.path(), &[]);
        let cards = process.ready_service(card_service::NAME);
        wait_until("the view has the account", || (cards.get("/readyz").body["view"]["accounts"] == 1).then_some(()));
        Ok(Server { process, _folder: folder, account })
    }

    fn body(&self, path: &str) -> Value {
        match path {
            "/account" => serde_json::from_str(ACCOUNT).unwrap_or_default(),
            _ => json!({"account_id": self.account, "country": "US"}),
        }
    }

    fn address(&mut self, path: &str) -> std::net::SocketAddr {
        let service = if path == "/account" { account_service::NAME } else { card_service::NAME };
        self.process.service(service).address()
    }

    fn turn(&mut self, path: &str, request: &Request, connections: usize) -> anyhow::Result<Turn> {
        let (address, server) = (self.address(path), self.process.id());
        let before = processor_time(server)?;
        let tally = load::closed_loop(address, request, Busy { connections, threads: 1, lasting: TURN })?;
        let used = processor_time(server)? - before;
        ensure!(tally.errors == 0, "{} of the requests failed", tally.errors);
        Ok(Turn {
            rate: tally.rate(),
            server_micros: tally.micros_a_request(used),
            generator_micros: tally.micros_a_request(tally.processor_time),
        })
    }

    /// Has it busy with `POST path` for a turn.
    pub(crate) fn post(&mut self, path: &str, connections: usize) -> anyhow::Result<Turn> {
        let request = Request::post(path, &self.body(path).to_string());
        let turn = self.turn(path, &request, connections)?;
        // What the turn left to publish is no business of the next one.
        let cards = self.process.service(card_service::NAME);
        wait_until("the view has read all", || (cards.get("/readyz").status == 200).then_some(()));
        Ok(turn)
    }
}

fn round(servers: &mut [Server; 3], path: &str, connections: usize) -> anyhow::Result<Round> {
    let [usual, no_database, no_relay] = servers;
    Ok(Round {
        durable: usual.post(path, connections)?,
        no_database: no_database.post(path, connections)?,
        no_relay: if path == "/account" { Some(no_relay.post(path, connections)?) } else { None },
        health: usual.turn(path, &Request::get("/health"), connections)?,
        syncs: sync_rate()?,
    })
}

fn lines(path: &str, connections: usize, rounds: &[Round]) -> Vec<Figure> {
    let rounds = Turns(rounds);
    let limit = |round: &Round| round.no_database.rate.min(connections as f64 / 2.0 * round.syncs);
    let rate = |what: String, peer, theirs: &dyn Fn(&Round) -> f64| {
        rounds.compared(what, Unit::PerSecond, |round| round.durable.rate, peer, theirs)
    };
    let micros = |what: &str, of: fn(&Round) -> f64| rounds.figure(what, Unit::Microseconds, of);
    let post = rate(format!("durable POST {path}, {connections} connections"), "no database, or the disk", &limit);
    let health = rate("  against GET /health".to_owned(), "GET /health", &|round| round.health.rate);
    let time = rounds.compared(
        "  server's processor time",
        Unit::Microseconds,
        |round| round.durable.server_micros,
        "GET /health",
        |round| round.health.server_micros,
    );
    let mut figures = vec![
        post.at_least(0.8),
        if connections >= 512 { health.at_least(0.5) } else { health },
        time.at_most(2.2),
        micros("  server's processor time without a database", |round| round.no_database.server_micros),
    ];
    if path == "/account" {
        let no_relay = |round: &Round| round.no_relay.map_or(f64::NAN, |turn| turn.rate);
        figures.push(rate("  with the relay".to_owned(), "no relay", &no_relay).at_least(0.9));
    }
    figures.push(micros("  generator's processor time", |round| round.durable.generator_micros));
    figures.push(rounds.figure("  raw syncs at the same turns", Unit::PerSecond, |round| round.syncs));
    figures
}

/// The same by `wrk`, where that is installed: a generator that is not ours.
fn confirmed(server: &mut Server) -> anyhow::Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("post.lua");
    let mut figures = Vec::new();
    for path in ["/account", "/card"] {
        let body = server.body(path);
        let head = "wrk.headers[\"Content-Type\"] = \"application/json\"";
        std::fs::write(&script, format!("wrk.method = \"POST\"\nwrk.body = '{body}'\n{head}\n"))?;
        let mut wrk = Command::new("wrk");
        wrk.args(["--threads=1", "--connections=64", "--duration=5s", "--script"]).arg(&script);
        let Ok(output) = wrk.arg(format!("http://{}{path}", server.address(path))).output() else {
            println!("wrk is not installed: no figures of its own");
            return Ok(Vec::new());
        };
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(!said.contains("Non-2xx"), "wrk had other answers: {said}");
        let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
        ensure!(rate.is_some(), "wrk tells no rate: {said}");
        let what = format!("durable POST {path}, 64 connections, by wrk");
        figures.push(Figure::new(what, rate.unwrap_or_default(), Unit::PerSecond));
    }
    Ok(figures)
}
