//! The deletion of an account deletes its cards (ARCHITECTURE.md C4).

use std::path::Path;

use account_events::AccountStatus::Deleted;
use event_log::partition_of_key;
use rusqlite::Connection;
use serde_json::json;
use test_harness::{database_url, wait_until, with_postgres};

use crate::service::{TestService, by_account, changed, created, new_id, written};

#[test]
fn the_cards_of_a_deleted_account_are_deleted_and_no_others() {
    let service = TestService::start();
    let accounts = [service.account(), service.account()];
    let cards: Vec<_> = (0..6).map(|n| service.card("US", &accounts[n % 2])).collect();
    service.delete(cards[0].header("location")).expect(200);
    service.tell(&[changed(&accounts[0], Deleted, 2)]);
    service.wait_until_all_deleted(&by_account(&accounts[0]));
    for (index, card) in cards.iter().enumerate() {
        let mut expected = card.body.clone();
        expected["deleted"] = json!(index % 2 == 0);
        assert_eq!(service.get(card.header("location")).raw, written(&expected));
    }
    let list = service.get(&by_account(&accounts[0])).expect(200);
    assert_eq!((&list["total"], &list["next"]), (&json!(3), &json!(null)), "deleted cards are still listed");
    assert_eq!(service.get("/cards").body["total"], 6);
    let again = service.delete(cards[2].header("location"));
    again.expect_error(409, "card_already_deleted", "card is already deleted", None);
    let answer = service.post_card("US", &accounts[0]);
    answer.expect_error(403, "account_deleted", "cannot create card for deleted account", None);
    service.card("US", &accounts[1]);
}

#[test]
fn the_database_refuses_a_card_that_a_view_left_behind_would_make() {
    let service = TestService::start();
    let account = service.account();
    service.card("US", &account);
    let known = service.view();
    service.switches.hold_feed(true);
    service.publish(&[changed(&account, Deleted, 2)]);
    service.wait_until_all_deleted(&by_account(&account));
    assert_eq!((&service.view()["records"], &service.view()["accounts"]), (&known["records"], &known["accounts"]));
    let answer = service.post_card("US", &account);
    answer.expect_error(403, "account_deleted", "cannot create card for deleted account", None);
    assert_eq!(service.get(&by_account(&account)).body["total"], 1);
    service.switches.hold_feed(false);
}

#[test]
fn an_account_deleted_before_its_first_card_is_refused_by_the_database_too() {
    let service = TestService::start();
    let account = service.account();
    let partition = |id: &str| partition_of_key(id.as_bytes(), 3);
    // Its deletion follows the account's in the same partition: once its card is deleted, the account is closed.
    let marker = std::iter::repeat_with(new_id).find(|id| partition(id) == partition(&account)).unwrap();
    service.tell(&[created(&marker)]);
    service.card("US", &marker);
    service.switches.hold_feed(true);
    service.publish(&[changed(&account, Deleted, 2), changed(&marker, Deleted, 2)]);
    service.wait_until_all_deleted(&by_account(&marker));
    let answer = service.post_card("US", &account);
    answer.expect_error(403, "account_deleted", "cannot create card for deleted account", None);
    assert_eq!(service.get(&by_account(&account)).body["total"], 0);
    service.switches.hold_feed(false);
}

#[test]
fn cards_are_closed_after_a_restart_too() {
    let service = TestService::start();
    let account = service.account();
    service.card("US", &account);
    service.tell(&[changed(&account, Deleted, 2)]);
    service.wait_until_all_deleted(&by_account(&account));
    let before = service.get(&by_account(&account)).raw;
    let service = service.restart();
    assert_eq!(service.get(&by_account(&account)).raw, before);
    let answer = service.post_card("US", &account);
    answer.expect_error(403, "account_deleted", "cannot create card for deleted account", None);
}

#[test]
fn a_database_put_back_to_an_older_copy_learns_again_which_accounts_are_deleted() {
    let service = TestService::start();
    let (kept, deleted) = (service.account(), service.account());
    service.card("US", &kept);
    service.card("US", &deleted);
    service.tell(&[changed(&deleted, Deleted, 2)]);
    service.wait_until_all_deleted(&by_account(&deleted));

    let service = service.restart_with_an_older_database();
    let cards = |account: &str| service.get(&by_account(account)).body["cards"][0]["deleted"].clone();
    assert_eq!(cards(&deleted), true, "closed before the service is ready");
    assert_eq!(cards(&kept), false);
    service.post_card("US", &deleted).expect(403);
}

#[test]
fn two_instances_close_all_accounts_whether_they_share_a_database_or_not() {
    let service = TestService::start();
    let (_folder, beside) = service.start_beside();
    let beside = beside.http().clone();
    wait_until("it is ready", || (beside.get("/readyz").status == 200).then_some(()));
    let accounts: Vec<_> = (0..12).map(|_| service.account()).collect();
    let lists: Vec<_> = accounts.iter().map(|account| by_account(account)).collect();
    for account in &accounts {
        service.card("US", account);
        let made =
            || (beside.post("/card", &json!({"country": "US", "account_id": account})).status == 201).then_some(());
        wait_until("the other one knows the account", made);
    }
    let deletions: Vec<_> = accounts.iter().map(|account| changed(account, Deleted, 2)).collect();
    service.tell(&deletions);
    for list in &lists {
        service.wait_until_all_deleted(list);
        let deleted = || {
            let page = beside.get(list).expect(200);
            let cards = page["cards"].as_array().expect("a list of cards");
            (!cards.is_empty() && cards.iter().all(|card| card["deleted"] == true)).then_some(())
        };
        wait_until("the other one has closed the account", deleted);
    }
}

/// Makes the database in `folder` reject that `account` is closed, or accept it again.
fn obstruct(folder: &Path, account: &str, is_obstructed: bool) {
    let url = database_url(folder, "card");
    match url.strip_prefix("sqlite:") {
        Some(path) => {
            let id = account.replace('-', "");
            let sql = match is_obstructed {
                true => format!(
                    "CREATE TRIGGER obstruct BEFORE UPDATE ON cards_by_account WHEN hex(NEW.account_id) = upper('{id}')
                     BEGIN SELECT raise(ABORT, 'obstructed'); END"
                ),
                false => "DROP TRIGGER obstruct".to_owned(),
            };
            Connection::open(path).and_then(|database| database.execute_batch(&sql)).expect("a database");
        }
        None => with_postgres(&url, async |client| {
            let change = match is_obstructed {
                true => format!("ADD CONSTRAINT obstruct CHECK (account_id <> '{account}' OR NOT closed)"),
                false => "DROP CONSTRAINT obstruct".to_owned(),
            };
            client.batch_execute(&format!("ALTER TABLE card.card_accounts {change}")).await
        }),
    }
}

#[test]
fn an_account_that_the_database_cannot_close_delays_no_other_account() {
    let service = TestService::start();
    let accounts: Vec<_> = (0..20).map(|_| service.account()).collect();
    for account in &accounts {
        service.card("US", account);
    }
    let (obstructed, others) = accounts.split_last().expect("accounts");
    let service = service.restart_after(|folder| obstruct(folder, obstructed, true));
    service.tell(&accounts.iter().map(|account| changed(account, Deleted, 2)).collect::<Vec<_>>());
    for account in others {
        service.wait_until_all_deleted(&by_account(account));
    }
    // It delays neither the readiness nor the other accounts of a checkpoint, and is not forgotten.
    let service = service.restart();
    service.post_card("US", obstructed).expect(403);
    let cards = service.get(&by_account(obstructed)).expect(200);
    assert_eq!(cards["cards"][0]["deleted"], false);
    let service = service.restart_after(|folder| obstruct(folder, obstructed, false));
    service.wait_until_all_deleted(&by_account(obstructed));
}
