//! Instances commit in any order, and no event is skipped because one before it was committed late, or in silence (ARCHITECTURE.md A3).

use event_log::partition_of_key;
use postgres::DatabaseUrl;
use serde_json::json;
use test_harness::{wait_until, with_postgres};
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::service::{Placed, TestService, account};

/// How far the clock of the other instance is ahead.
const AHEAD_MICROS: i64 = 60_000_000;

/// What the writer does of an account that it makes: the account, the ledger's one row, and the event numbered by it.
/// `$1` is the account, `$2` the time.
const WRITE: &str = "
    WITH created AS (
        INSERT INTO account.accounts
        VALUES (nextval('account.account_sequence'), $1, 'John Doe', 'US', 'ACTIVE', 1, 1, $2, $2)
    ), head AS (
        UPDATE account.ledger
        SET active = active + 1, last_outbox_sequence = greatest(last_outbox_sequence, $2) + 1
        RETURNING last_outbox_sequence
    )
    INSERT INTO account.outbox
    SELECT last_outbox_sequence, $1, 'account.created', 'ACTIVE', 1, $2,
        '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
    FROM head";

#[test]
fn an_event_whose_transaction_commits_late_is_published_before_those_behind_it() {
    let service = TestService::start();
    // SQLite has one writer, so there is nobody to commit in between.
    let DatabaseUrl::Postgres(url) = service.database() else { return };
    let id = service.new_id();
    service.log_of(1);
    let partition = |id: &str| partition_of_key(id.as_bytes(), 3);
    // In the same partition, whose order then tells which came first.
    let late =
        std::iter::repeat_with(Uuid::new_v4).find(|late| partition(&late.to_string()) == partition(&id)).unwrap();

    // Another instance, stopped before its commit. Its clock is ahead, so whoever numbers events by the clock instead of the
    // ledger, or before the ledger is theirs, gets a lower number.
    let runtime = Runtime::new().expect("a runtime");
    let (other, connection) = runtime.block_on(tokio_postgres::connect(&url, NoTls)).expect("a connection");
    runtime.spawn(connection);
    let now = clock::Clock::system().now().as_microsecond() + AHEAD_MICROS;
    runtime.block_on(other.batch_execute("BEGIN")).expect("a transaction");
    runtime.block_on(other.execute(WRITE, &[&late, &now])).expect("a row each");

    std::thread::scope(|scope| {
        let change = scope.spawn(|| service.patch(&id, &json!({"status": "BLOCKED"})));
        wait_until("the change waits for the ledger", || {
            let waiting = with_postgres(&url, async |client| {
                let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                           AND wait_event_type = 'Lock' AND query LIKE '%UPDATE account.ledger%'";
                Ok(client.query_one(sql, &[]).await?.get::<_, i64>(0))
            });
            assert!(!change.is_finished(), "it was answered before its turn");
            (waiting == 1).then_some(())
        });
        assert_eq!(service.log().len(), 1, "nothing is published that is not committed");
        runtime.block_on(other.batch_execute("COMMIT")).expect("a commit");
        change.join().expect("an answer").expect(200);
    });
    let log = service.log_of(3);
    let key = |placed: &Placed| String::from_utf8(placed.record.key.clone().expect("a key")).expect("text");
    assert_eq!(log.iter().map(key).collect::<Vec<_>>(), [id.clone(), late.to_string(), id.clone()]);
    // And from there on as ever.
    service.delete(&account(&id)).expect(200);
    service.log_of(4);
}

#[test]
fn an_event_that_nobody_tells_the_relay_of_is_found() {
    let service = TestService::start();
    let DatabaseUrl::Postgres(url) = service.database() else { return };
    service.new_id();
    service.log_of(1);
    // An instance that is killed between its commit and whatever it does next has told nobody.
    let now = clock::Clock::system().now().as_microsecond();
    with_postgres(&url, async |client| client.execute(WRITE, &[&Uuid::new_v4(), &now]).await);
    service.log_of(2);
    // And what is handed over from then on has its place behind it.
    service.new_id();
    service.log_of(3);
}
