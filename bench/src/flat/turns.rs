//! The requests, each to services of either size in turn.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use account_events::AccountStatus;
use anyhow::ensure;

use super::fill::{HELD, HOLDER};
use crate::accounts::{MadeAccount, card_id, scattered};
use crate::figure::{Figure, Unit};
use crate::load::{self, Request, Schedule};
use crate::machine::{processor_time, sync_rate};
use crate::milliseconds;
use crate::turns::Turns;

/// Requests a second of `POST /card`: each waits for a sync.
const POSTS: Schedule = Schedule { rate: 200, seconds: 5, connections: 16 };

/// Of each list.
const LISTS: Schedule = Schedule { rate: 200, seconds: 2, connections: 16 };

/// The highest ratio of a p99 to that of the small services.
const BOUND: f64 = 1.5;

/// Services with so many accounts, and as many cards.
pub(super) struct Sized {
    pub(super) count: u64,
    /// Of their files.
    pub(super) folder: PathBuf,
    /// Of both.
    pub(super) process: u32,
    pub(super) accounts: SocketAddr,
    pub(super) cards: SocketAddr,
}

/// A request, made for services of a size and a number that looks like chance.
struct Asked {
    what: &'static str,
    schedule: Schedule,
    of_cards: bool,
    /// Whether it reads where nobody has read for long: what a machine may have to fetch from disk.
    is_anywhere: bool,
    make: fn(u64, u64) -> Request,
}

const ASKED: [Asked; 13] = [
    Asked {
        what: "POST /card",
        schedule: POSTS,
        of_cards: true,
        is_anywhere: true,
        make: |count, chance| post_card(count, chance),
    },
    accounts("GET /accounts", |_, _| Request::get("/accounts")),
    accounts("GET /accounts?status=ACTIVE", |_, _| Request::get("/accounts?status=ACTIVE")),
    accounts("GET /accounts?status=BLOCKED", |_, _| Request::get("/accounts?status=BLOCKED")),
    accounts("GET /accounts?status=DELETED", |_, _| Request::get("/accounts?status=DELETED")),
    accounts("GET /accounts?after=, anywhere", |count, chance| accounts_after("", anywhere(count, chance))).anywhere(),
    accounts("GET /accounts?status=BLOCKED&after=, anywhere", |count, chance| {
        accounts_after("status=BLOCKED&", anywhere(count, chance))
    })
    .anywhere(),
    accounts("GET /accounts?after=, the last page", |_, _| accounts_after("", 51)),
    cards("GET /cards", |_, _| Request::get("/cards")),
    cards("GET /cards?after=, anywhere", |count, chance| cards_after(anywhere(count, chance))).anywhere(),
    cards("GET /cards?after=, the last page", |_, _| cards_after(51)),
    cards("GET /cards/by-account", |count, chance| {
        Request::get(&format!("/cards/by-account?account_id={}", MadeAccount(anywhere(count, chance)).id()))
    })
    .anywhere(),
    cards("GET /cards/by-account?after=, of 1,000 cards", |count, chance| {
        let (holder, after) = (MadeAccount(HOLDER).id(), card_id(count - HELD / 2 + chance % (HELD / 4)));
        Request::get(&format!("/cards/by-account?account_id={holder}&after={after}"))
    }),
];

const fn accounts(what: &'static str, make: fn(u64, u64) -> Request) -> Asked {
    Asked { what, schedule: LISTS, of_cards: false, is_anywhere: false, make }
}

const fn cards(what: &'static str, make: fn(u64, u64) -> Request) -> Asked {
    Asked { what, schedule: LISTS, of_cards: true, is_anywhere: false, make }
}

fn post_card(count: u64, chance: u64) -> Request {
    let number = chance % count + 1;
    let active = (number..).map(MadeAccount).find(|account| account.status() == AccountStatus::Active);
    let account_id = active.unwrap_or(MadeAccount(HOLDER)).id();
    Request::post("/card", &format!(r#"{{"country":"US","account_id":"{account_id}"}}"#))
}

fn accounts_after(filter: &str, number: u64) -> Request {
    Request::get(&format!("/accounts?{filter}after={}", MadeAccount(number).id()))
}

fn cards_after(number: u64) -> Request {
    Request::get(&format!("/cards?after={}", card_id(number)))
}

/// In the middle half, so that the page is a full one.
fn anywhere(count: u64, chance: u64) -> u64 {
    count / 4 + chance % (count / 2)
}

/// p99 of each at `big`, against that at `small`: the median of the turns, and that of their ratios. Of what reads anywhere also
/// with the files in the machine's memory, as those of `small` always are.
pub(super) fn measure(small: &Sized, big: &Sized, count: u64) -> anyhow::Result<Vec<Figure>> {
    let asked_in_memory = || ASKED.iter().filter(|asked| asked.is_anywhere);
    let (mut turns, mut all_spent) = (vec![Vec::new(); ASKED.len()], Vec::new());
    let mut turns_in_memory = vec![Vec::new(); asked_in_memory().count()];
    for turn in 0..count {
        println!("p99 at {} and at {}: turn {} of {count}", big.count, small.count, turn + 1);
        let (mut of_small, mut of_big) = (Spent::default(), Spent::default());
        for (asked, turns) in ASKED.iter().zip(&mut turns) {
            turns.push(asked.p99s((big, &mut of_big), (small, &mut of_small), turn)?);
        }
        let (mut not_counted, mut neither) = (Spent::default(), Spent::default());
        for (asked, turns) in asked_in_memory().zip(&mut turns_in_memory) {
            big.read_files()?;
            // Others than those that were just asked for.
            turns.push(asked.p99s((big, &mut not_counted), (small, &mut neither), count + turn)?);
        }
        all_spent.push((of_big, of_small, sync_rate()?));
    }
    let p99s = ASKED.iter().zip(turns).map(|(asked, turns)| asked.figure("", &turns, small, big).at_most(BOUND));
    let in_memory = asked_in_memory().zip(turns_in_memory);
    let in_memory = in_memory.map(|(asked, turns)| asked.figure(", files in memory", &turns, small, big));
    let spent = Turns(&all_spent);
    let time = |of: &str, value: fn(&Spent) -> f64| {
        let (what, small) = (format!("{of}'s processor time a request, all of these"), small.count.to_string());
        spent.compared(what, Unit::Microseconds, |turn| value(&turn.0), small, |turn| value(&turn.1))
    };
    let beside = [
        time("server", |spent| spent.micros(spent.server)),
        time("generator", |spent| spent.micros(spent.generator)),
        spent.figure("raw syncs at the same turns", Unit::PerSecond, |turn| turn.2),
    ];
    Ok(p99s.chain(in_memory).chain(beside).collect())
}

impl Sized {
    /// Reads the databases through, so that the machine has them in memory.
    fn read_files(&self) -> anyhow::Result<()> {
        for name in ["account.db", "card.db"] {
            std::io::copy(&mut File::open(self.folder.join(name))?, &mut std::io::sink())?;
        }
        Ok(())
    }
}

/// Processor time of a turn's requests at one size.
#[derive(Default)]
struct Spent {
    requests: u64,
    server: Duration,
    generator: Duration,
}

impl Spent {
    fn micros(&self, used: Duration) -> f64 {
        used.as_secs_f64() * 1_000_000.0 / self.requests as f64
    }
}

impl Asked {
    const fn anywhere(self) -> Asked {
        Asked { is_anywhere: true, ..self }
    }

    /// Of big and small services. Each is the first as often as the other, nearly.
    fn p99s(
        &self,
        (big, of_big): (&Sized, &mut Spent),
        (small, of_small): (&Sized, &mut Spent),
        turn: u64,
    ) -> anyhow::Result<(f64, f64)> {
        if turn.is_multiple_of(2) {
            let first = self.p99(small, turn, of_small)?;
            Ok((self.p99(big, turn, of_big)?, first))
        } else {
            Ok((self.p99(big, turn, of_big)?, self.p99(small, turn, of_small)?))
        }
    }

    /// In milliseconds.
    fn p99(&self, services: &Sized, turn: u64, spent: &mut Spent) -> anyhow::Result<f64> {
        let address = if self.of_cards { services.cards } else { services.accounts };
        let request = |number: u32| (self.make)(services.count, scattered((turn << 32) | u64::from(number)));
        let before = processor_time(services.process)?;
        let tally = load::open_loop_of(address, request, self.schedule, |_| ())?;
        ensure!(tally.errors == 0, "{} of {} failed", tally.errors, self.what);
        spent.server += processor_time(services.process)? - before;
        spent.generator += tally.processor_time;
        spent.requests += tally.latencies.len();
        Ok(milliseconds(&tally.latencies, 0.99))
    }

    fn figure(&self, how: &str, turns: &[(f64, f64)], small: &Sized, big: &Sized) -> Figure {
        let what = format!("p99 of {}, {} accounts and cards{how}", self.what, big.count);
        Turns(turns).compared(what, Unit::Milliseconds, |turn| turn.0, small.count.to_string(), |turn| turn.1)
    }
}
