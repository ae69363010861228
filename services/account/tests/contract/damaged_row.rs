//! Stored rows that the service would not write. Only requests that need them fail.

use postgres::DatabaseUrl;
use serde_json::json;
use test_harness::{at_once, wait_until, with_postgres};

use crate::service::{TestService, account};

const THREADS: usize = 16;

/// Runs `sql` in the database of `service`, beside the service.
fn execute(service: &TestService, sql: &str) {
    match service.database() {
        DatabaseUrl::Sqlite(path) => {
            let connection = rusqlite::Connection::open(path).expect("a database");
            connection.busy_timeout(std::time::Duration::from_secs(5)).expect("a timeout");
            connection.execute_batch(sql).expect("the statement runs");
        }
        DatabaseUrl::Postgres(url) => with_postgres(&url, async |client| client.batch_execute(sql).await),
    }
}

/// Makes the row of an account unreadable: no country has this code.
fn damage(service: &TestService, id: &str) {
    let (table, id) = match service.database() {
        DatabaseUrl::Sqlite(_) => ("accounts", format!("x'{}'", id.replace('-', ""))),
        DatabaseUrl::Postgres(_) => ("account.accounts", format!("'{id}'")),
    };
    execute(service, &format!("UPDATE {table} SET country_code = '??' WHERE id = {id}"));
}

#[test]
fn a_damaged_account_fails_no_request_for_another_one() {
    let service = TestService::start();
    let ids: Vec<_> = (0..THREADS).map(|_| service.new_id()).collect();
    damage(&service, &ids[0]);
    at_once(THREADS, &service, |thread, http| {
        for round in 0..20 {
            let body = json!({"beholder_name": format!("Jane {round}")});
            let answer = http.send_json("PATCH", &account(&ids[thread]), &body);
            let expected = if thread == 0 { 500 } else { 200 };
            assert_eq!(answer.status, expected, "{}", answer.raw);
            http.post("/account", &json!({"beholder_name": "John Doe", "country_code": "US"})).expect(201);
        }
    });
    let warnings = service.get("/readyz").expect(200)["warnings"].to_string();
    assert!(warnings.contains("some changes fail: the database is damaged"), "{warnings}");
    service.get(&account(&ids[0])).expect(503);
}

#[test]
fn a_database_in_which_every_change_fails_is_not_ready_and_recovers() {
    let service = TestService::start();
    let id = service.new_id();
    damage(&service, &id);
    service.patch(&id, &json!({"beholder_name": "Jane"})).expect_error(
        500,
        "storage_rejected",
        "the database does not accept this request; the logs tell more",
        None,
    );
    let unready = service.get("/readyz");
    assert_eq!(unready.status, 503, "{}", unready.raw);
    assert!(unready.text("error").contains("the database is damaged"), "{}", unready.raw);
    wait_until("other transactions succeed", || (service.get("/readyz").status == 200).then_some(()));
}

#[test]
fn a_trigger_that_an_operator_has_added_rejects_one_command() {
    let service = TestService::start();
    let DatabaseUrl::Sqlite(_) = service.database() else { return };
    // The tables exist once the service answers.
    service.get("/readyz").expect(200);
    execute(
        &service,
        "CREATE TRIGGER refuse BEFORE INSERT ON accounts WHEN new.beholder_name = 'Mallory'
         BEGIN SELECT RAISE(ABORT, 'no Mallory here'); END",
    );
    at_once(THREADS, &service, |thread, http| {
        for _ in 0..10 {
            let name = if thread == 0 { "Mallory" } else { "Bob" };
            let answer = http.post("/account", &json!({"beholder_name": name, "country_code": "US"}));
            assert_eq!(answer.status, if thread == 0 { 500 } else { 201 }, "{}", answer.raw);
        }
    });
    service.get("/readyz").expect(200);
    assert_eq!(service.list("")["total"], (THREADS - 1) * 10);
}
