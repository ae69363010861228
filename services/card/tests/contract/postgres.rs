//! A PostgreSQL database that rejects one command, or cannot be read. SQLite has no such constraints.

use account_events::AccountStatus::Deleted;
use event_log::Record;
use serde_json::json;
use test_harness::{at_once, wait_until, with_postgres};

use crate::service::{TestService, by_account, card, changed};

#[test]
fn a_command_that_the_database_rejects_fails_alone() {
    const THREADS: usize = 32;
    const EACH: usize = 10;
    let service = TestService::start();
    let Some(url) = service.postgres_url() else { return };
    with_postgres(&url, async |client| {
        client.batch_execute("ALTER TABLE card.cards ADD CHECK (country <> 'DE')").await
    });
    let account = service.account();
    let ids = at_once(THREADS, &service, |thread, http| {
        let mut ids = Vec::new();
        for _ in 0..EACH {
            let country = if thread % 8 == 0 { "DE" } else { "US" };
            let answer = http.post("/card", &json!({"country": country, "account_id": account}));
            match country {
                "DE" => {
                    let text = "the database does not accept this request; the logs tell more";
                    answer.expect_error(500, "storage_rejected", text, None);
                }
                _ => ids.push(answer.expect(201)["id"].as_str().expect("an id").to_owned()),
            }
        }
        ids
    })
    .concat();
    // Deletions lock the cards first, so they are another transaction.
    at_once(THREADS, &service, |thread, http| {
        match thread % 8 {
            0 => http.post("/card", &json!({"country": "DE", "account_id": account})).expect(500),
            _ => http.delete(&format!("/card?id={}", ids[thread])).expect(200),
        };
    });
    service.get("/readyz").expect(200);
    assert_eq!(service.get(&by_account(&account)).body["total"], ids.len());
}

#[test]
fn a_read_that_fails_shows_in_readyz_until_it_works_again() {
    let service = TestService::start();
    let Some(url) = service.postgres_url() else { return };
    let created = service.card("US", &service.account());
    let path = card(created.text("id"));
    let rename = |from: &str, to: &str| {
        let sql = format!("ALTER TABLE card.{from} RENAME TO {to}");
        with_postgres(&url, async |client| client.batch_execute(&sql).await);
    };
    rename("cards", "renamed");
    service.get(&path).expect(503);
    // A probe follows the failed read, and the server answers it: other reads work.
    let warnings = wait_until("other reads work", || {
        let report = service.get("/readyz");
        (report.status == 200).then(|| report.body["warnings"].to_string())
    });
    assert!(warnings.contains("some reads fail") && warnings.contains("does not exist"), "{warnings}");
    rename("renamed", "cards");
    service.get(&path).expect(200);
}

/// PostgreSQL's text type allows no NUL: a record that contains one must not fail its batch.
#[test]
fn a_record_in_quarantine_may_hold_anything() {
    let mut service = TestService::start();
    let account = service.account();
    let record =
        |value: &str| Record { key: Some(vec![0]), value: Some(value.into()), ..changed(&account, Deleted, 2) };
    let id = &account;
    service.tell(&[
        record("\0"),
        record(&format!(r#"{{"type":"\u0000","account_id":"{id}","status":"DELETED"}}"#)),
        record(r#"{"type":"account.created","account_id":"\u0000","status":"DELETED"}"#),
        record(&format!(r#"{{"type":"account.created","account_id":"{id}","status":"\u0000"}}"#)),
        record(&format!(
            r#"{{"type":"account.created","account_id":"{id}","status":"ACTIVE","\u0000":1,"status":"\u0000"}}"#
        )),
        record(r#""\u0000""#),
    ]);
    service.card("US", &account);
    service.get("/readyz").expect(200);
    let counted = service.view()["quarantined"].clone();
    assert_eq!(service.stop_and_read_quarantine().len(), counted);
}
