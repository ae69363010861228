//! The same on Apache Kafka and PostgreSQL, beside what those take by themselves at the same rate.
//!
//! A POST is to be visible within what a bare producer and consumer pair takes, and the commit alone, and a millisecond more for
//! all that is the services' own. The pair sends records like theirs, each by itself and acknowledged by all; the commit is
//! pgbench's of as many rows as a transaction of the account service had, as many times a second, from when it is
//! sent. All three take turns, and each counts the median of its turn.

use std::sync::Arc;
use std::time::Duration;

use database::DatabaseUrl;
use event_log::KafkaLog;
use hdrhistogram::Histogram;
use test_harness::postgres_database;

use super::{Services, Setup, Turn, beside, commit_to_visible};
use crate::figure::{Figure, Unit};
use crate::load::Schedule;
use crate::pgbench::{Pgbench, Rows};
use crate::servers::Servers;
use crate::turns::Turns;
use crate::{milliseconds, peers};

/// Turns of each, of which the medians are given.
const TURNS: usize = 5;

/// What a turn of each makes, and how much of it does not count.
const SCHEDULE: Schedule = Schedule { rate: 1_000, seconds: 8, connections: 64 };
const WARM_UP: Duration = Duration::from_secs(2);

/// A broker that has just been started compiles its code, and takes the cores for it: on two of them the services' p50 after 15 s was
/// still nearly twice that with a broker that had run for minutes.
const FIRST: Schedule = Schedule { seconds: 45, ..SCHEDULE };

/// What the services may add, in milliseconds.
const ALLOWANCE: f64 = 1.0;

/// A turn of each.
struct Round {
    ours: Turn,
    rows_a_transaction: f64,
    bare: Histogram<u64>,
    /// In milliseconds.
    commit: f64,
}

impl Round {
    /// In milliseconds.
    fn limit(&self) -> f64 {
        milliseconds(&self.bare, 0.5) + self.commit + ALLOWANCE
    }
}

pub(crate) fn measure(servers: &Servers, quick: bool) -> anyhow::Result<Vec<Figure>> {
    let pgbench = Pgbench::new(servers)?;
    let (account_url, card_url) = (postgres_database(&servers.postgres), postgres_database(&servers.postgres));
    let log: Arc<KafkaLog> = Arc::new(servers.topic("visible")?);
    let (account_database, card_database) =
        (DatabaseUrl::Postgres(account_url.clone()), DatabaseUrl::Postgres(card_url));
    let services = Services::start(Setup { log, account_database, card_database })?;
    println!("warming up for {} s", FIRST.seconds);
    services.turn(FIRST, WARM_UP)?;
    let (count, mut rounds) = (if quick { 1 } else { TURNS }, Vec::new());
    for number in 1..=count {
        println!("{} accounts, records and rows a second: turn {number} of {count}", SCHEDULE.rate);
        let before = Rows::Accounts.last(&account_url);
        let ours = services.turn(SCHEDULE, WARM_UP)?;
        let rows_a_transaction = Rows::Accounts.a_transaction(&account_url, before);
        let bare = peers::bare(servers, &format!("bare-{number}"), SCHEDULE, WARM_UP)?;
        let size = rows_a_transaction.round() as u32;
        let lasting = Duration::from_secs(SCHEDULE.seconds.into()) - WARM_UP;
        let commit = pgbench.median_commit(Rows::Accounts, size, SCHEDULE.rate / size, lasting)?;
        rounds.push(Round { ours, rows_a_transaction, bare, commit });
    }
    services.stop()?;
    let mut figures = figures(rounds);
    figures.extend(peers::transactions(servers, SCHEDULE, WARM_UP)?);
    Ok(figures)
}

fn figures(rounds: Vec<Round>) -> Vec<Figure> {
    let turns = Turns(&rounds);
    let ms = |what: &str, of: &dyn Fn(&Round) -> f64| turns.figure(what, Unit::Milliseconds, of);
    let to_visible = turns.compared(
        "POST /account due to visible, Kafka and PostgreSQL, 1,000 a second, p50",
        Unit::Milliseconds,
        |round| milliseconds(&round.ours.due_to_visible, 0.5),
        "bare pair + commit + 1 ms",
        Round::limit,
    );
    let mut figures = vec![
        to_visible.at_most(1.0),
        ms("  bare librdkafka, idempotent, p50", &|round| milliseconds(&round.bare, 0.5)),
        ms("  bare librdkafka, idempotent, p99", &|round| milliseconds(&round.bare, 0.99)),
        ms("  pgbench's commit of such batches, p50", &|round| round.commit),
        turns.figure("  accounts a transaction", Unit::Count, |round| round.rows_a_transaction),
    ];
    let ours: Vec<_> = rounds.into_iter().map(|round| round.ours).collect();
    let what = "commit to visible, Kafka and PostgreSQL, 1,000 accounts a second";
    figures.push(commit_to_visible(&ours, what, 0.5).at_most(5.0));
    figures.push(commit_to_visible(&ours, what, 0.99).at_most(25.0));
    figures.extend(beside(&ours));
    figures
}
