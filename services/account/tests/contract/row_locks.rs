//! An operator's open transaction in PostgreSQL that has locked rows. SQLite has no row locks.

use std::time::{Duration, Instant};

use postgres::DatabaseUrl;
use serde_json::json;
use test_harness::{at_once, wait_until, with_postgres};

use crate::service::{TestService, account};

/// Within what every request is answered while rows are locked: far less than the statement timeout for each batch.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn only_a_change_of_a_locked_account_fails_and_the_service_stays_ready() {
    const THREADS: usize = 16;
    const EACH: usize = 3;
    let service = TestService::start();
    let DatabaseUrl::Postgres(url) = service.database() else { return };
    let ids: Vec<_> = (0..THREADS).map(|_| service.new_id()).collect();
    let locked = |thread: usize| thread.is_multiple_of(8);
    with_postgres(&url, async |client| {
        client.batch_execute("BEGIN").await?;
        for id in (0..THREADS).filter(|thread| locked(*thread)).map(|thread| &ids[thread]) {
            let sql = format!("SELECT FROM account.accounts WHERE id = '{id}' FOR UPDATE");
            client.batch_execute(&sql).await?;
        }
        tokio::task::block_in_place(|| {
            at_once(THREADS, &service, |thread, http| {
                for round in 0..EACH {
                    let body = json!({"beholder_name": format!("Jane {round}")});
                    let asked = Instant::now();
                    let answer = http.send_json("PATCH", &account(&ids[thread]), &body);
                    assert!(asked.elapsed() < ANSWERED_WITHIN, "{:?}", asked.elapsed());
                    match locked(thread) {
                        true => assert_eq!((answer.status, answer.text("code")), (503, "storage_unavailable")),
                        false => drop(answer.expect(200)),
                    }
                    http.post("/account", &json!({"beholder_name": "John Doe", "country_code": "US"})).expect(201);
                }
            });
            service.get("/readyz").expect(200);
        });
        client.batch_execute("ROLLBACK").await
    });
    service.patch(&ids[0], &json!({"beholder_name": "Jane"})).expect(200);
    assert_eq!(service.list("")["total"], THREADS + THREADS * EACH);
}

#[test]
fn a_locked_ledger_is_in_readyz_until_it_is_free() {
    let service = TestService::start();
    let DatabaseUrl::Postgres(url) = service.database() else { return };
    let id = service.new_id();
    with_postgres(&url, async |client| {
        client.batch_execute("BEGIN; SELECT FROM account.ledger FOR UPDATE").await?;
        tokio::task::block_in_place(|| {
            let refused = service.patch(&id, &json!({"status": "BLOCKED"}));
            assert_eq!((refused.status, refused.text("code")), (503, "storage_unavailable"), "{}", refused.raw);
            // For longer than the writer waits before it looks again.
            let since = Instant::now();
            while since.elapsed() < Duration::from_secs(2) {
                let unready = service.get("/readyz");
                assert_eq!(unready.status, 503, "{}", unready.raw);
                assert!(unready.text("error").contains("the database is unavailable"), "{}", unready.raw);
            }
        });
        client.batch_execute("ROLLBACK").await
    });
    wait_until("the service is ready without a request", || (service.get("/readyz").status == 200).then_some(()));
    service.patch(&id, &json!({"status": "BLOCKED"})).expect(200);
}
