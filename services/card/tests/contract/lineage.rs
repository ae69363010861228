//! A card database that was restored to an older copy, or replaced, beside the checkpoint of the view; and a log that lacks accounts for
//! now (docs/decisions/0017).

use std::fs;
use std::time::{Duration, Instant};

use account_events::{Owner, PUBLISHER};
use serde_json::json;
use test_harness::{copy_database, database_url, postgres_database, wait_until};

use crate::service::{Settings, TestService, created, new_id};

fn numbers(service: &TestService, account: &str, count: usize) -> Vec<String> {
    (0..count).map(|_| service.card("US", account).text("card_number").to_owned()).collect()
}

#[test]
fn a_restored_card_database_issues_no_number_twice() {
    let (service, backup) = (TestService::start(), tempfile::tempdir().unwrap());
    let account = service.account();
    let mut all = numbers(&service, &account, 3);
    let copy = database_url(backup.path(), "card");
    let service = service.restart_after(|folder| copy_database(&database_url(folder, "card"), &copy));
    all.extend(numbers(&service, &account, 40));
    let service = service.restart_after(|folder| copy_database(&copy, &database_url(folder, "card")));
    let new = numbers(&service, &account, 60);
    assert!(new.iter().all(|number| !all.contains(number)), "a number twice");
    assert_eq!(service.get("/cards?limit=1").expect(200)["total"], 63);
    let service = service.restart();
    assert_eq!(service.get("/cards?limit=1").expect(200)["total"], 63);
    let later = numbers(&service, &account, 3);
    assert!(later.iter().all(|number| !all.contains(number) && !new.contains(number)), "a number twice");
}

#[test]
fn a_checkpoint_of_another_card_database_is_not_used() {
    let service = TestService::start();
    let accounts: Vec<_> = (0..10).map(|_| service.account()).collect();
    service.card("US", &accounts[0]);
    let service = service.restart_after(|folder| {
        let url = database_url(folder, "card");
        match url.strip_prefix("sqlite:") {
            Some(path) => fs::remove_file(path).expect("a file"),
            None => {
                let (server, _) = url.rsplit_once('/').expect("a URL");
                copy_database(&postgres_database(&format!("{server}/postgres")), &url);
            }
        }
    });
    assert_eq!(service.view()["records"], 10, "the log was read from its start");
    assert_eq!(service.card("US", &accounts[9]).status, 201);
}

#[test]
fn an_instance_that_starts_while_a_resync_is_open_is_ready_when_it_is_complete() {
    let owner = |is_resync_open| Owner {
        database_id: "a".to_owned(),
        session: "s".to_owned(),
        account_sequence_high: 2,
        number_key: String::new(),
        log_id: "l".to_owned(),
        is_resync_open,
        last_event: None,
    };
    let (first, second) = (new_id(), new_id());
    let mut publisher = None;
    let service = TestService::start_behind(Settings::default(), |accounts, _| {
        let mut resync = accounts.log().publisher(PUBLISHER).expect("a publisher");
        resync.set_note(owner(true).to_note());
        resync.publish(&[created(&first)], 1).expect("a log that is there");
        publisher = Some(resync);
    });
    wait_until("the view has read the log", || (service.view()["accounts"] == 1).then_some(()));
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        let answer = service.get("/readyz");
        assert_eq!(answer.status, 503, "{}", answer.raw);
    }
    let refused = service.post("/card", &json!({"country": "US", "account_id": second}));
    assert_eq!((refused.status, refused.text("code")), (503, "catching_up"));
    let mut publisher = publisher.expect("a publisher");
    publisher.set_note(owner(false).to_note());
    publisher.publish(&[created(&second)], 2).expect("a log that is there");
    service.wait_until_ready();
    assert_eq!(service.card("US", &second).status, 201);
}
