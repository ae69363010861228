//! Creating a card and closing its account lock the account's row (ARCHITECTURE.md C4). Within a process one writer commits both, so
//! these tests open the other transaction by hand, as another instance would. SQLite has one writer and no row locks.

use account_events::AccountStatus::Deleted;
use serde_json::json;
use test_harness::{at_once, wait_until, with_postgres};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::service::{TestService, by_account, changed};

#[test]
fn a_card_waits_for_a_closing_that_is_under_way_and_is_refused_then() {
    let service = TestService::start();
    let Some(database) = service.postgres_url() else { return };
    let lock = "SELECT 1 FROM card.card_accounts WHERE account_id = $1 FOR UPDATE";
    let close = "UPDATE card.card_accounts SET closed = true WHERE account_id = $1";
    let add = "INSERT INTO card.card_accounts VALUES ($1, 0, true)";
    // The statements of the closing before and after the card is requested. An account without cards has no row before. Creating a
    // card waits for a change of the row in any case, so only the first case needs the lock.
    for (done, left) in [(lock, Some(close)), (close, None), (add, None)] {
        let account = service.account();
        let has_card = done != add;
        if has_card {
            service.card("US", &account);
        }
        let answer = std::thread::scope(|scope| {
            with_postgres(&database, async |client| {
                client.batch_execute("BEGIN").await?;
                client.execute(done, &[&uuid(&account)]).await?;
                let asking = scope.spawn(|| service.post_card("US", &account));
                wait_until_waited_for(&database, client).await?;
                assert!(!asking.is_finished(), "the request is not answered before the closing has ended");
                if let Some(left) = left {
                    client.execute(left, &[&uuid(&account)]).await?;
                }
                client.batch_execute("COMMIT").await?;
                Ok(asking.join().expect("an answer"))
            })
        });
        answer.expect_error(403, "account_deleted", "cannot create card for deleted account", None);
        assert_eq!(service.get(&by_account(&account)).body["total"], u64::from(has_card));
    }
}

/// The closing changes the row, so it waits in any case. It must not look for cards before it has waited.
#[test]
fn a_closing_waits_for_a_card_that_is_being_made_and_deletes_it_then() {
    let service = TestService::start();
    let Some(database) = service.postgres_url() else { return };
    let account = service.account();
    service.card("US", &account);
    with_postgres(&database, async |client| {
        let (id, account_id) = (Uuid::new_v4(), uuid(&account));
        // The statements of a card's creation, up to the commit.
        client.batch_execute("BEGIN").await?;
        let lock = "SELECT closed FROM card.card_accounts WHERE account_id = $1 FOR UPDATE";
        assert!(!client.query_one(lock, &[&account_id]).await?.get::<_, bool>(0));
        let insert = "INSERT INTO card.cards VALUES (nextval('card.card_sequence'), $1, 'US', $2, false, 0)";
        client.execute(insert, &[&id, &account_id]).await?;
        service.publish(&[changed(&account, Deleted, 2)]);
        wait_until_waited_for(&database, client).await?;
        let cards = service.get(&by_account(&account)).expect(200)["cards"].take();
        assert!(cards.as_array().expect("a list").iter().all(|card| card["deleted"] == false), "{cards}");
        client.batch_execute("UPDATE card.ledger SET cards = cards + 1").await?;
        client.batch_execute("COMMIT").await
    });
    service.wait_until_all_deleted(&by_account(&account));
    let cards = service.get(&by_account(&account)).expect(200)["cards"].take();
    assert_eq!(cards.as_array().map(Vec::len), Some(2), "{cards}");
}

#[test]
fn an_account_that_is_locked_delays_no_other_account_and_is_closed_later() {
    let service = TestService::start();
    let Some(database) = service.postgres_url() else { return };
    let accounts: Vec<_> = (0..20).map(|_| service.account()).collect();
    for account in &accounts {
        service.card("US", account);
    }
    let [first, .., last] = &accounts[..] else { panic!("{accounts:?}") };
    with_postgres(&database, async |client| {
        client.batch_execute("BEGIN").await?;
        let lock = "SELECT 1 FROM card.card_accounts WHERE account_id = ANY($1) FOR UPDATE";
        client.execute(lock, &[&vec![uuid(first), uuid(last)]]).await?;
        let deletions: Vec<_> = accounts.iter().map(|account| changed(account, Deleted, 2)).collect();
        tokio::task::block_in_place(|| {
            service.tell(&deletions);
            for account in &accounts[1..accounts.len() - 1] {
                service.wait_until_all_deleted(&by_account(account));
            }
            service.card("US", &service.account());
            service.get("/readyz").expect(200);
        });
        client.batch_execute("COMMIT").await
    });
    for account in [first, last] {
        service.wait_until_all_deleted(&by_account(account));
    }
}

/// An operator's open transaction has locked the row.
#[test]
fn only_a_card_of_a_locked_account_fails_and_the_service_stays_ready() {
    const THREADS: usize = 8;
    const EACH: usize = 5;
    let service = TestService::start();
    let Some(database) = service.postgres_url() else { return };
    let accounts: Vec<_> = (0..THREADS).map(|_| service.account()).collect();
    service.card("US", &accounts[0]);
    with_postgres(&database, async |client| {
        client.batch_execute("BEGIN").await?;
        let lock = "SELECT 1 FROM card.card_accounts WHERE account_id = $1 FOR UPDATE";
        client.execute(lock, &[&uuid(&accounts[0])]).await?;
        tokio::task::block_in_place(|| {
            at_once(THREADS, &service, |thread, http| {
                for _ in 0..EACH {
                    let card = json!({"country": "US", "account_id": accounts[thread]});
                    let answer = http.post("/card", &card);
                    assert_eq!(answer.status, if thread == 0 { 503 } else { 201 }, "{}", answer.raw);
                }
            });
            service.get("/readyz").expect(200);
        });
        client.batch_execute("ROLLBACK").await
    });
    service.card("US", &accounts[0]);
    assert_eq!(service.get("/cards").expect(200)["total"], 2 + (THREADS - 1) * EACH);
}

fn uuid(id: &str) -> Uuid {
    id.parse().expect("a UUID")
}

/// Waits until another connection waits for a lock that the transaction of `client` has.
async fn wait_until_waited_for(database: &str, client: &Client) -> Result<(), tokio_postgres::Error> {
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    tokio::task::block_in_place(|| {
        let sql = format!("SELECT 1 FROM pg_stat_activity WHERE {pid} = ANY(pg_blocking_pids(pid))");
        wait_until("the service waits for the transaction", || {
            with_postgres(database, async |other| other.query_opt(&sql, &[]).await)
        });
    });
    Ok(())
}
