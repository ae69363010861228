//! Acknowledged writes survive a restart.

use account_events::AccountStatus::{Blocked, Deleted};

use crate::service::{TestService, by_account, changed, written};

#[test]
fn everything_is_there_after_a_restart_and_goes_on() {
    let service = TestService::start();
    let accounts: Vec<_> = (0..3).map(|_| service.account()).collect();
    let cards: Vec<_> = (0..12).map(|n| service.card(["US", "DE"][n % 2], &accounts[n % 3])).collect();
    service.delete(cards[4].header("location")).expect(200);
    service.tell(&[changed(&accounts[0], Deleted, 2), changed(&accounts[1], Blocked, 2)]);
    service.wait_until_all_deleted(&by_account(&accounts[0]));
    let mut paths: Vec<_> = cards.iter().map(|card| card.header("location").to_owned()).collect();
    paths.extend(["/cards".to_owned(), "/cards?limit=5".to_owned()]);
    paths.extend(accounts.iter().map(|account| by_account(account)));
    paths.extend(cards.iter().map(|card| format!("/cards/by-number?card_number={}", card.text("card_number"))));
    let read = |service: &TestService| -> Vec<_> { paths.iter().map(|path| service.get(path).raw).collect() };
    let before = read(&service);

    // Twice: the second start uses the files that the first one left.
    let service = service.restart().restart();
    assert_eq!(read(&service), before);
    service.post_card("US", &accounts[0]).expect(403);
    service.post_card("US", &accounts[1]).expect(403);
    let new = service.card("FR", &accounts[2]);
    assert!(cards.iter().all(|card| card.text("card_number")[3..] != new.text("card_number")[3..]));
    let list = service.get("/cards?limit=1").expect(200);
    assert_eq!((&list["total"], written(&list["cards"][0])), (&13.into(), new.raw));
    assert_eq!(service.get(&by_account(&accounts[2])).body["total"], 5);
    service.delete(cards[4].header("location")).expect(409);
    service.delete(cards[5].header("location")).expect(200);
}

#[test]
fn a_file_has_one_service_and_a_server_has_many() {
    let service = TestService::start();
    let account = service.account();
    let card = service.card("US", &account);
    let mut another = service.start_another();
    if service.is_on_postgres() {
        another.http().get(card.header("location")).expect(200);
        another.http().delete(card.header("location")).expect(200);
        service.delete(card.header("location")).expect(409);
        return;
    }
    let refused = another.wait().expect_err("refused").to_string();
    assert!(refused.contains("card.db is in use by another process"), "{refused}");
    let service = service.restart();
    assert_eq!(service.get("/cards").body["total"], 1, "the lock ends with its holder");
}
