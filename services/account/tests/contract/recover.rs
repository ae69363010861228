//! `tandem recover`: a restored database, or one of two copies, goes on from what table and log know together (docs/decisions/0017).

use std::sync::Arc;

use account_service::recover::{Lost, Report, recover};
use event_log::EventLog;
use serde_json::json;
use tokio::runtime::Runtime;

use crate::history::assert_history;
use crate::lineage::{Backup, diverged, text};
use crate::lost_log::last_of_each;
use crate::service::{TestService, account};

fn run(service: &TestService, dry_run: bool, lost: Lost) -> anyhow::Result<Report> {
    let (url, log) =
        (text(&service.database()).parse().expect("a URL"), Arc::clone(service.event_log()) as Arc<dyn EventLog>);
    Runtime::new()?.block_on(recover(url, log, dry_run, lost, |_, _| ()))
}

/// A service whose database was restored, the ids of two accounts that changed since, and the one that is lost.
fn restored(backup: &Backup) -> (TestService, [String; 3], String, Vec<String>) {
    let service = TestService::start();
    let ids = [(); 3].map(|()| service.new_id());
    let [blocked, deleted, renamed] = &ids;
    let service = service.restart_between(|database| backup.save(database));
    service.patch(blocked, &json!({"status": "BLOCKED"})).expect(200);
    service.delete(&account(deleted)).expect(200);
    service.patch(renamed, &json!({"beholder_name": "Jane Doe"})).expect(200);
    let lost = service.create("John Doe", "US");
    let numbers = service.list("?limit=200")["accounts"].as_array().expect("accounts").clone();
    let numbers = numbers.iter().map(|account| account["account_number"].as_str().expect("a number").to_owned());
    let numbers = numbers.collect();
    service.log_of(6);
    let service = service.restart_between(|database| backup.restore(database));
    service.superseded();
    (service, ids, lost.text("id").to_owned(), numbers)
}

#[test]
fn a_restored_database_takes_what_the_log_knows_and_goes_on() {
    let backup = Backup::new();
    let (service, [blocked, deleted, renamed], lost, mut numbers) = restored(&backup);
    let service = service.restart_beside(|service| {
        let would = run(service, true, Lost::Keep).expect("it can be recovered");
        let report = run(service, false, Lost::Keep).expect("it is recovered");
        for report in [would, report] {
            let Report { accounts, in_log, adopted, published, only_in_log, blocked, lost: listed } = report;
            assert_eq!((accounts, in_log, adopted, published, only_in_log, blocked), (3, 4, 2, 0, 1, 0));
            assert_eq!(listed, [lost.parse().unwrap()]);
        }
    });
    let status = |id: &str| service.get(&account(id)).expect(200)["status"].clone();
    assert_eq!([status(&blocked), status(&deleted), status(&renamed)], ["BLOCKED", "DELETED", "ACTIVE"]);
    let created = (1, "created", "ACTIVE");
    assert_history(&service, &blocked, &[(2, "recovered", "BLOCKED"), created]);
    assert_history(&service, &deleted, &[(2, "recovered", "DELETED"), created]);
    assert_history(&service, &renamed, &[created]); // no event has the name
    assert_eq!(service.get(&account(&lost)).status, 404);
    assert_eq!(service.list("?status=BLOCKED")["total"], 1);
    service.patch(&blocked, &json!({"status": "ACTIVE"})).expect(200);
    for _ in 0..100 {
        let number = service.create("John Doe", "US").text("account_number").to_owned();
        assert!(!numbers.contains(&number), "{number} was issued before");
        numbers.push(number);
    }
    assert_eq!(service.list("?limit=1")["total"], 103);
    let last = last_of_each(&service.log_of(107));
    assert_eq!((last[&blocked].0, last[&deleted].0, last[&lost].0), (3, 2, 1));
    // And once more.
    let service = service.restart_between(|database| backup.restore(database));
    service.superseded();
    let service = service.restart_beside(|service| {
        let report = run(service, false, Lost::Block).expect("it is recovered");
        assert_eq!((report.adopted, report.published, report.only_in_log, report.blocked), (2, 0, 101, 101));
    });
    let last = last_of_each(&service.log_of(208));
    assert_eq!(last[&lost].0, 2);
    assert!(last[&lost].1.contains("BLOCKED"), "{}", last[&lost].1);
    assert_eq!(last[&blocked].0, 3, "the log's own");
}

#[test]
fn what_a_copy_has_acknowledged_without_the_log_is_published_and_nothing_stale() {
    let (service, backup) = (TestService::start(), Backup::new());
    let id = service.new_id();
    let service = service.restart_between(|database| backup.save(database));
    service.patch(&id, &json!({"status": "BLOCKED"})).expect(200);
    service.log_of(2);
    service.set_log_away(true);
    let service = service.restart_between(|database| backup.restore(database));
    // The same account goes another way in the copy.
    service.patch(&id, &json!({"beholder_name": "Jane Doe"})).expect(200);
    service.patch(&id, &json!({"status": "BLOCKED"})).expect(200);
    service.patch(&id, &json!({"status": "ACTIVE"})).expect(200);
    let stranded: Vec<_> = (0..3).map(|_| service.new_id()).collect();
    service.set_log_away(false);
    service.superseded();
    let service = service.restart_beside(|service| {
        let report = run(service, false, Lost::Keep).expect("it is recovered");
        assert_eq!((report.adopted, report.published, report.only_in_log), (0, 4, 0));
    });
    let last = last_of_each(&service.log_of(6));
    assert!(stranded.iter().all(|id| last[id].0 == 1));
    // Version 4 of the copy, since the rename was its version 2.
    assert_eq!(last[&id].0, 4);
    assert!(last[&id].1.contains("ACTIVE"), "{}", last[&id].1);
    service.delete(&account(&id)).expect(200);
    assert_eq!(last_of_each(&service.stop_and_read_log())[&id].0, 5);
}

#[test]
fn a_database_that_diverged_from_the_log_publishes_its_own_events_and_goes_on() {
    let backup = Backup::new();
    let (service, id) = diverged(&backup);
    service.superseded();
    let service = service.restart_beside(|service| {
        let report = run(service, false, Lost::Block).expect("it is recovered");
        assert_eq!((report.adopted, report.published, report.only_in_log, report.blocked), (0, 1, 1, 1));
    });
    // The last event is of an account without a row, also after restarts.
    service.log_of(5);
    let service = service.restart().restart();
    service.delete(&account(&id)).expect(200);
    assert_eq!(last_of_each(&service.log_of(6))[&id].0, 3);
}

#[test]
fn a_database_in_use_and_one_of_another_topic_are_left_alone() {
    let (service, other) = (TestService::start(), TestService::start());
    service.new_id();
    other.new_id();
    service.log_of(1);
    other.log_of(1);
    let refused = run(&service, false, Lost::Keep).expect_err("it is in use").to_string();
    assert!(refused.contains("in use") || refused.contains("uses this database"), "{refused}");
    let service = service.restart_beside(|service| {
        let (url, log) = (text(&service.database()).parse().unwrap(), Arc::clone(other.event_log()));
        let recovering = recover(url, log, false, Lost::Block, |_, _| ());
        // On PostgreSQL the lease of the service that ended has been released.
        let refused = Runtime::new().unwrap().block_on(recovering).expect_err("a foreign topic").to_string();
        assert!(refused.contains("the event log belongs to the account database"), "{refused}");
    });
    service.new_id();
    service.log_of(2);
    other.log_of(1);
}

#[test]
fn of_two_copies_the_one_that_stays_takes_what_the_other_published() {
    let (service, backup) = (TestService::start(), Backup::new());
    let id = service.new_id();
    service.log_of(1);
    let mut of_copy = String::new();
    // The copy publishes while the original is down, and the original finds that out; then the copy is stopped for good.
    let service = service.restart_beside(|service| {
        backup.save(&service.database());
        let copy = service.start_copy(backup.folder());
        let new = json!({"beholder_name": "Jane Doe", "country_code": "DE"});
        of_copy = copy.http().post("/account", &new).expect(201)["id"].as_str().expect("an id").to_owned();
        copy.http().send_json("PATCH", &account(&id), &json!({"status": "BLOCKED"})).expect(200);
        service.log_of(3);
    });
    service.superseded();
    let service = service.restart_beside(|service| {
        let report = run(service, false, Lost::Keep).expect("it is recovered");
        assert_eq!((report.adopted, report.published, report.only_in_log), (1, 0, 1));
        assert_eq!(report.lost, [of_copy.parse().unwrap()]);
    });
    assert_eq!(service.get(&account(&id)).expect(200)["status"], "BLOCKED");
    service.delete(&account(&id)).expect(200);
    assert_eq!(last_of_each(&service.stop_and_read_log())[&id].0, 3);
}
