//! Whether latency stays flat: `POST /card` and every list with a thousand times the accounts and cards, beside the same with
//! few.
//!
//! Two all-in-ones run at once, on SQLite and the embedded log, and take turns: one is idle while the other is asked. Their
//! files are [filled](fill) directly. Requests are sent on a fixed schedule, so a stall shows in all that it delays.

mod fill;
mod growth;
mod turns;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use test_harness::{Http, Process, binary};

use self::turns::Sized;
use crate::builds;
use crate::figure::Figure;

/// Accounts, and as many cards.
const SMALL: u64 = 10_000;
const BIG: u64 = 10_000_000;

/// Changes of status, of which the growth of outbox and log is taken: the log compacts itself on the way.
const CHANGES: usize = 64_000;

/// How often each request is measured at either size.
const TURNS: u64 = 5;

/// How long the big view may take to be rebuilt.
const READY: Duration = Duration::from_secs(180);

pub(crate) fn measure(quick: bool) -> anyhow::Result<Vec<Figure>> {
    builds::build("tandem")?;
    let (big, changes, turns) = if quick { (BIG / 10, CHANGES / 10, 1) } else { (BIG, CHANGES, TURNS) };
    let folders = (tempfile::tempdir()?, tempfile::tempdir()?);
    for (folder, accounts) in [(&folders.0, SMALL), (&folders.1, big)] {
        let started = Instant::now();
        fill::fill(folder.path(), accounts)?;
        println!("filled {accounts} accounts and cards in {:.0} s", started.elapsed().as_secs_f64());
    }
    let mut figures = growth::disk(folders.1.path(), big)?;
    let (small_process, small) = start(folders.0.path(), SMALL)?;
    let (mut big_process, big) = start(folders.1.path(), big)?;
    figures.splice(..0, turns::measure(&small, &big, turns)?);
    big_process.terminate();
    figures.extend(growth::changes(small_process, folders.0.path(), SMALL, changes)?);
    Ok(figures)
}

fn start(folder: &Path, count: u64) -> anyhow::Result<(Process, Sized)> {
    let started = Instant::now();
    let mut tandem = Process::start(&binary("tandem"), folder, &[("DATA_DIR", ".")]);
    let [accounts, cards] = [account_service::NAME, card_service::NAME].map(|name| tandem.service(name));
    while !is_ready(&cards) {
        ensure!(started.elapsed() < READY, "the view of {count} accounts was not ready in {READY:?}");
        thread::park_timeout(Duration::from_millis(20));
    }
    println!("{count} accounts were ready in {:.1} s", started.elapsed().as_secs_f64());
    let relay = &accounts.get("/readyz").body["relay"];
    ensure!(relay["published"] == 0, "events were published that were there already: {relay}");
    let process = tandem.id();
    Ok((
        tandem,
        Sized { count, folder: folder.to_owned(), process, accounts: accounts.address(), cards: cards.address() },
    ))
}

fn is_ready(cards: &Http) -> bool {
    cards.get("/readyz").status == 200
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::accounts::MadeAccount;

    #[test]
    fn filled_files_are_as_the_services_would_have_made_them() {
        const COUNT: u64 = 2_000;
        let folder = tempfile::tempdir().unwrap();
        fill::fill(folder.path(), COUNT).unwrap();
        assert_eq!(growth::disk(folder.path(), COUNT).unwrap().len(), 3);
        let (tandem, services) = start(folder.path(), COUNT).unwrap();
        let (accounts, cards) = (Http::new(services.accounts), Http::new(services.cards));
        for (filter, total) in
            [("", 2_000), ("?status=ACTIVE", 1_600), ("?status=BLOCKED", 200), ("?status=DELETED", 200)]
        {
            assert_eq!(accounts.get(&format!("/accounts{filter}")).expect(200)["total"], total, "{filter}");
        }
        let account = accounts.get(&format!("/account?id={}", MadeAccount(1_001).id())).expect(200);
        let number = account["account_number"].as_str().unwrap();
        assert_eq!(accounts.get(&format!("/accounts/by-number?account_number={number}")).expect(200), account);
        let made = accounts.post("/account", &json!({"beholder_name": "John Doe", "country_code": "US"})).expect(201);
        assert_eq!(accounts.get("/accounts?limit=1").expect(200)["accounts"][0], made);
        assert_eq!(cards.get("/cards").expect(200)["total"], COUNT);
        for (account, held) in [(fill::HOLDER, 1_001), (2, 1), (7, 1), (1_500, 0)] {
            let path = format!("/cards/by-account?account_id={}", MadeAccount(account).id());
            assert_eq!(cards.get(&path).expect(200)["total"], held, "account {account}");
        }
        for (account, status) in [(2, 201), (3, 403), (7, 403)] {
            let body = json!({"country": "US", "account_id": MadeAccount(account).id()});
            assert_eq!(cards.post("/card", &body).status, status, "account {account}");
        }
        let figures = growth::changes(tandem, folder.path(), COUNT, 640).unwrap();
        // The account that was made here has a record too.
        assert_eq!((figures[0].ours, figures[2].ours), (0.0, COUNT as f64 + 1.0));
    }
}
