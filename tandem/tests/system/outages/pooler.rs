//! PgBouncer in front of PostgreSQL, as managed databases have it. Sessions that it pools are as good as connections of one's
//! own; a mode that gives each transaction or statement another server connection is refused by name.

use test_harness::{Process, at_once, binary, wait_until};

use crate::place::Place;
use crate::requests::{create_account, create_card};
use crate::servers::Servers;

const THREADS: usize = 16;
const EACH: usize = 25;

#[test]
fn sessions_are_pooled_and_other_modes_are_refused() {
    let Some(servers) = Servers::start("pooler", &["postgres", "pgbouncer"]) else { return };
    let url = servers.pgbouncer();
    let databases = |url: &str| [("ACCOUNT_DATABASE_URL", url.to_owned()), ("CARD_DATABASE_URL", url.to_owned())];
    for mode in ["transactions", "statements"] {
        let (server, _) = url.rsplit_once('/').expect("a URL with a database");
        let place = Place::embedded();
        let settings = databases(&format!("{server}/{mode}"));
        let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
        let mut refused = Process::start(&binary("tandem"), place.folder(), &settings);
        assert!(!refused.wait().success(), "{mode}");
        let lines = wait_until("it says why", || Some(refused.lines()).filter(|lines| !lines.is_empty()));
        let errors: Vec<_> = lines.iter().filter(|line| line.contains("pool")).collect();
        assert!(errors.len() == 1 && errors[0].contains("does not pool sessions"), "{mode}: {lines:?}");
    }

    let place = Place::embedded();
    let settings = databases(&url);
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut running = place.start_all_in_one_with(&settings);
    let accounts = running.ready_service(account_service::NAME);
    let cards = running.ready_service(card_service::NAME);
    let ids =
        at_once(THREADS, &accounts, |_, http| (0..EACH).map(|_| create_account(http)).collect::<Vec<_>>()).concat();
    for id in ids.iter().step_by(EACH) {
        wait_until("the account may have a card", || (create_card(&cards, *id).status == 201).then_some(()));
    }
    assert_eq!(accounts.get("/accounts").expect(200)["total"], THREADS * EACH);
    // Every connection is lost, and made again through the pooler.
    servers.tell(&["stop", "postgres"]);
    wait_until("it is not ready", || (accounts.get("/readyz").status == 503).then_some(()));
    servers.tell(&["start", "postgres"]);
    wait_until("it is ready", || (accounts.get("/readyz").status == 200).then_some(()));
    let last = create_account(&accounts);
    wait_until("the account may have a card", || (create_card(&cards, last).status == 201).then_some(()));
    assert!(running.terminate().success());
}
