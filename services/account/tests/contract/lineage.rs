//! A database and a log that do not belong together: a restored database, a copy that runs beside its original, an empty database on
//! a topic that has an owner, a foreign topic (docs/decisions/0017). No account is lost in silence, no number is issued twice, and no
//! version goes back in the log.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use account_events::{Owner, PUBLISHER};
use clock::Clock;
use postgres::DatabaseUrl;
use serde_json::json;
use test_harness::{Http, copy_database, database_url, with_postgres};

use crate::lost_log::last_of_each;
use crate::service::{START_MICROS, TestService, account, superseded};

/// The URL of a database that only this test uses, in the folder of the saved copies.
pub(crate) struct Backup {
    folder: tempfile::TempDir,
}

impl Backup {
    pub(crate) fn new() -> Self {
        Backup { folder: tempfile::tempdir().expect("a folder") }
    }

    /// The folder of the copy.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn url(&self) -> String {
        database_url(self.folder.path(), "account")
    }

    pub(crate) fn save(&self, database: &DatabaseUrl) {
        copy_database(&text(database), &self.url());
    }

    /// Restores the copy as one that was saved in the session that the log names, as a standby is.
    fn restore_in_session(&self, service: &TestService) {
        let committed = service.event_log().committed(PUBLISHER, Duration::from_secs(10)).expect("a log that is there");
        let owner = committed.and_then(|committed| Owner::from_note(&committed.note)).expect("an owner");
        let sql = |table| format!("INSERT INTO {table} (session) VALUES ('{}') ON CONFLICT DO NOTHING", owner.session);
        let copy = self.url().parse().expect("a URL");
        execute(&copy, &sql("publisher_sessions"), &sql("account.publisher_sessions"));
        self.restore(&service.database());
    }

    pub(crate) fn restore(&self, database: &DatabaseUrl) {
        copy_database(&self.url(), &text(database));
    }
}

/// The URL with its password.
pub(crate) fn text(url: &DatabaseUrl) -> String {
    match url {
        DatabaseUrl::Sqlite(path) => format!("sqlite:{}", path.display()),
        DatabaseUrl::Postgres(url) => url.clone(),
    }
}

/// Runs `sqlite` or `postgres` in the database, which may be in use.
fn execute(database: &DatabaseUrl, sqlite: &str, postgres: &str) {
    match database {
        DatabaseUrl::Sqlite(path) => {
            let connection = rusqlite::Connection::open(path).expect("a database");
            connection.execute_batch(sqlite).expect("a change");
        }
        DatabaseUrl::Postgres(url) => with_postgres(url, async |client| client.batch_execute(postgres).await),
    }
}

fn set_anchor(database: &DatabaseUrl, anchor: &str) {
    let sql = |table| format!("UPDATE {table} SET outbox_anchor = {anchor}");
    execute(database, &sql("ledger"), &sql("account.relay_lease"));
}

#[track_caller]
fn assert_takes_no_writes(service: &Http, id: &str) {
    let new = json!({"beholder_name": "John Doe", "country_code": "US"});
    let answers = [
        service.post("/account", &new),
        service.send_json("PATCH", &account(id), &json!({"status": "BLOCKED"})),
        service.delete(&account(id)),
    ];
    for answer in answers {
        assert_eq!((answer.status, answer.text("code")), (503, "database_superseded"), "{}", answer.raw);
    }
    assert_eq!(service.get(&account(id)).status, 200, "reads go on");
}

#[test]
fn a_restored_database_takes_no_writes_and_publishes_nothing_old() {
    let (service, backup) = (TestService::start(), Backup::new());
    let id = service.new_id();
    let service = service.restart_between(|database| backup.save(database));
    service.patch(&id, &json!({"status": "BLOCKED"})).expect(200);
    service.new_id();
    service.log_of(3);
    let service = service.restart_between(|database| backup.restore(database));
    let reason = service.superseded();
    assert!(reason.contains("the event log is ahead of this account database (event 3 after 1)"), "{reason}");
    assert!(reason.contains("tandem recover"), "{reason}");
    assert_takes_no_writes(&service, &id);
    // Also at once after a restart, while the log is away.
    service.set_log_away(true);
    let service = service.restart();
    assert_takes_no_writes(&service, &id);
    service.set_log_away(false);
    assert_eq!(last_of_each(&service.log_of(3))[&id].0, 2);
}

#[test]
fn a_restored_database_that_went_on_without_the_log_is_found_out_however_many_events_it_has() {
    let (service, backup) = (TestService::start(), Backup::new());
    let id = service.new_id();
    let service = service.restart_between(|database| backup.save(database));
    service.patch(&id, &json!({"status": "BLOCKED"})).expect(200);
    service.log_of(2);
    service.set_log_away(true);
    let service = service.restart_between(|database| backup.restore(database));
    // Nobody knows yet, and accounts are created without the log (A2). A restart does not make them known.
    for _ in 0..5 {
        service.new_id();
    }
    let service = service.restart();
    service.new_id();
    service.set_log_away(false);
    let reason = service.superseded();
    assert!(reason.contains("(event 2 after 1)"), "{reason}");
    assert!(reason.ends_with("acknowledged events that are in this database only: 6"), "{reason}");
    assert_takes_no_writes(&service, &id);
    assert_eq!(service.stop_and_read_log().len(), 2);
}

/// A database that lost the last events of the log and has as many others, and an account that both sides brought to the same version.
pub(crate) fn diverged(backup: &Backup) -> (TestService, String) {
    let service = TestService::start();
    let id = service.new_id();
    let change = |service: &TestService| {
        service.new_id();
        service.patch(&id, &json!({"status": "BLOCKED"})).expect(200);
    };
    let service = service.restart_between(|database| backup.save(database));
    change(&service);
    service.log_of(3);
    let service = service.restart_beside(|service| {
        backup.restore_in_session(service);
        service.set_log_away(true);
    });
    change(&service);
    set_anchor(&service.database(), "NULL");
    service.set_log_away(false);
    (service, id)
}

#[test]
fn a_database_with_as_many_events_as_the_log_is_found_out_by_its_last_event() {
    let backup = Backup::new();
    let (service, id) = diverged(&backup);
    let reason = service.superseded();
    assert!(reason.contains("event 3 of the event log is not event 3 of this account database"), "{reason}");
    assert!(reason.contains("acknowledged events that are in this database only: at most "), "{reason}");
    assert_takes_no_writes(&service, &id);
    assert_eq!(service.stop_and_read_log().len(), 3);
}

/// A service, and an account of its own that was committed before two of an instance that has ended. `None` on SQLite, where no other
/// instance uses the file.
fn with_commits_of_another(backup: &Backup) -> Option<(TestService, String)> {
    let service = TestService::start();
    if !service.is_on_postgres() {
        return None;
    }
    let id = service.new_id();
    service.log_of(1);
    backup.save(&service.database());
    let mut other = service.start_another();
    for _ in 0..2 {
        other.http().post("/account", &json!({"beholder_name": "Jane Doe", "country_code": "DE"})).expect(201);
    }
    service.log_of(3);
    other.stop().expect("a clean end");
    Some((service, id))
}

/// A fail-over to a standby that lacks the last commits of another instance: nothing but the log shows that.
#[test]
fn commits_of_another_instance_that_a_failover_loses_are_missed_however_many_follow() {
    let backup = Backup::new();
    let Some((service, id)) = with_commits_of_another(&backup) else { return };
    service.set_log_away(true);
    backup.restore_in_session(&service);
    // They get the sequences of the lost ones.
    for _ in 0..2 {
        service.new_id();
    }
    service.set_log_away(false);
    let reason = service.superseded();
    assert!(reason.contains("event 3 of the event log is not event 3 of this account database"), "{reason}");
    assert_takes_no_writes(&service, &id);
    service.log_of(3);
}

#[test]
fn a_failover_between_two_statements_is_noticed_by_the_publisher_that_is_open() {
    let Some((service, id)) = with_commits_of_another(&Backup::new()) else { return };
    let failover = "BEGIN; DELETE FROM account.accounts WHERE sequence > 1; DELETE FROM account.outbox;
        UPDATE account.ledger SET active = 1, last_outbox_sequence = 1, previous_outbox_sequence = 1;
        UPDATE account.relay_lease SET removed_outbox_sequence = least(removed_outbox_sequence, 1); COMMIT;
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    execute(&service.database(), "", failover);
    service.superseded();
    assert_takes_no_writes(&service, &id);
    service.log_of(3);
}

/// A publisher that was paused goes on after the next instance has set the anchor.
#[test]
fn events_behind_the_anchor_that_this_database_has_are_no_reason() {
    let service = TestService::start();
    let id = service.new_id();
    service.patch(&id, &json!({"status": "BLOCKED"})).expect(200);
    service.log_of(2);
    let service = service.restart_between(|database| set_anchor(database, "1"));
    service.delete(&account(&id)).expect(200);
    service.log_of(3);
    assert_eq!(service.get("/readyz").status, 200);
}

#[test]
fn of_a_copy_and_its_original_the_later_opener_wins_and_the_other_says_what_is_stranded() {
    let (service, backup) = (TestService::start(), Backup::new());
    if service.is_on_postgres() {
        // Copying closes its connections, after which either may open first: see the next test.
        return;
    }
    let id = service.new_id();
    service.log_of(1);
    // A snapshot of the disk, of a service that runs.
    backup.save(&service.database());
    let copy = service.start_copy(backup.folder.path());
    let create = |service: &Http| {
        service.post("/account", &json!({"beholder_name": "Jane Doe", "country_code": "DE"})).expect(201)["id"].clone()
    };
    create(copy.http());
    service.log_of(2);
    // The original finds out when it publishes. What it has acknowledged until then is stranded, and counted.
    let stranded = create(&service);
    let reason = service.superseded();
    assert!(reason.contains("another copy of this account database has published"), "{reason}");
    assert!(reason.ends_with("acknowledged events that are in this database only: 1"), "{reason}");
    assert_takes_no_writes(&service, &id);
    create(copy.http());
    let log = last_of_each(&service.log_of(3));
    assert!(!log.contains_key(stranded.as_str().unwrap()));
    assert_eq!(copy.http().get("/readyz").status, 200);
}

#[test]
fn an_original_that_starts_after_its_copy_has_published_takes_no_writes() {
    let (service, backup) = (TestService::start(), Backup::new());
    let id = service.new_id();
    service.log_of(1);
    let mut copy = None;
    let folder = backup.folder.path().to_owned();
    let service = service.restart_beside(|service| {
        backup.save(&service.database());
        let started = service.start_copy(&folder);
        started.http().post("/account", &json!({"beholder_name": "Jane Doe", "country_code": "DE"})).expect(201);
        service.log_of(2);
        copy = Some(started);
    });
    // The log shows the copy's event before it is committed with the position.
    let reason = service.superseded();
    assert!(reason.contains("(event 2 after 1)") || reason.contains("another copy"), "{reason}");
    assert_takes_no_writes(&service, &id);
    let copy = copy.expect("a copy");
    copy.http().delete(&account(&id)).expect(200);
    service.log_of(3);
}

/// Events are numbered by the database and not by the clock.
#[test]
fn a_clock_that_was_an_hour_ahead_changes_nothing() {
    let hour = 3_600_000_000;
    let clock = Clock::fixed(START_MICROS + hour);
    let service = TestService::start_with(clock.clone(), None);
    let id = service.new_id();
    service.log_of(1);
    clock.advance_micros(-hour);
    service.patch(&id, &json!({"status": "BLOCKED"})).expect(200);
    let service = service.restart();
    service.patch(&id, &json!({"status": "ACTIVE"})).expect(200);
    let service = service.restart();
    service.delete(&account(&id)).expect(200);
    assert_eq!(service.get("/readyz").status, 200);
    assert_eq!(last_of_each(&service.log_of(4))[&id].0, 4);
}

#[test]
fn an_empty_database_takes_the_topic_over_and_issues_no_number_twice() {
    let (service, backup) = (TestService::start(), Backup::new());
    let numbers = |service: &TestService, count: usize| -> Vec<String> {
        (0..count).map(|_| service.create("John Doe", "US").text("account_number").to_owned()).collect()
    };
    let service = service.restart_between(|database| backup.save(database));
    let lost: Vec<_> = numbers(&service, 50);
    let log = service.log_of(50);
    let lost_accounts = last_of_each(&log);
    // A new database, as a new DATA_DIR makes it.
    let service = service.restart_between(empty);
    let mut all: HashSet<String> = lost.into_iter().collect();
    let new = numbers(&service, 200);
    assert!(new.into_iter().all(|number| all.insert(number)), "a number twice");
    assert_eq!(service.list("?limit=1")["total"], 200);
    let service = service.restart();
    assert!(numbers(&service, 20).into_iter().all(|number| all.insert(number)), "a number twice after a restart");
    assert_eq!(service.list("?limit=1")["total"], 220);
    let last = last_of_each(&service.log_of(270));
    assert!(lost_accounts.iter().all(|(id, state)| last[id] == *state), "accounts of the one before stay as they are");
    // The one before is not ours any more.
    let service = service.restart_between(|database| backup.restore(database));
    assert!(service.superseded().contains("the event log is ahead"), "the earlier database");
}

/// Replaces the database by an empty one.
fn empty(database: &DatabaseUrl) {
    match database {
        DatabaseUrl::Sqlite(path) => std::fs::remove_file(path).expect("a file"),
        DatabaseUrl::Postgres(url) => {
            let (server, _) = url.rsplit_once('/').expect("a URL");
            copy_database(&test_harness::postgres_database(&format!("{server}/postgres")), url);
        }
    }
}

#[test]
fn a_foreign_topic_is_refused_and_its_owner_goes_on() {
    let (owner, other) = (TestService::start(), TestService::start());
    owner.new_id();
    let id = other.new_id();
    owner.log_of(1);
    other.log_of(1);
    other.with_the_log_of(&owner, |other| {
        let reason = superseded(other);
        assert!(reason.contains("the topic belongs to the account database"), "{reason}");
        assert_takes_no_writes(other, &id);
    });
    owner.new_id();
    owner.log_of(2);
}

#[test]
fn a_database_that_is_set_back_under_a_running_service_stops_it_for_good() {
    let (service, backup) = (TestService::start(), Backup::new());
    if !service.is_on_postgres() {
        // The one process that uses a SQLite file has it open.
        return;
    }
    let id = service.new_id();
    let mut service = service.restart_between(|database| backup.save(database));
    service.patch(&id, &json!({"status": "BLOCKED"})).expect(200);
    backup.restore(&service.database());
    let failure = service.failure();
    assert!(failure.contains("set back under a running service, to event 1 after event 2"), "{failure}");
    let next = service.start_another();
    let reason = superseded(next.http());
    assert!(reason.contains("set back") && reason.contains("tandem recover"), "{reason}");
    assert_takes_no_writes(next.http(), &id);
}
