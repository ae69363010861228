//! Migrations, on a synthetic schema and a real server. Without `TANDEM_TEST_POSTGRES_URL` there is nothing to test.

use postgres::{OpenError, Postgres, PostgresSchema};
use test_harness::{POSTGRES_URL, postgres_database, with_postgres};
use tokio::task::JoinSet;

/// The number of instances that start at once.
const INSTANCES: usize = 5;

/// Each step fails if it is run twice, and the last one counts its runs.
const MIGRATIONS: &[&str] = &[
    "CREATE TABLE synthetic.items (n int NOT NULL)",
    "ALTER TABLE synthetic.items ADD COLUMN name text NOT NULL DEFAULT 'old'",
    "CREATE TABLE synthetic.runs (n int NOT NULL); INSERT INTO synthetic.runs VALUES (1)",
];

fn schema(versions: usize) -> PostgresSchema {
    PostgresSchema { name: "synthetic", migrations: &MIGRATIONS[..versions] }
}

fn database() -> Option<String> {
    std::env::var(POSTGRES_URL).ok().map(|server| postgres_database(&server))
}

/// Opens the database at `url` from all instances at once.
fn open_at_once(url: &str, versions: usize) -> Vec<Result<(), OpenError>> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut openers = JoinSet::new();
        for _ in 0..INSTANCES {
            let url = url.to_owned();
            openers.spawn(async move { Postgres::open(&url, &schema(versions)).await.map(drop) });
        }
        openers.join_all().await
    })
}

fn all_open(url: &str, versions: usize) {
    open_at_once(url, versions).into_iter().for_each(|opened| opened.expect("it opens"));
}

fn version(url: &str) -> i32 {
    with_postgres(url, async |client| client.query_one("SELECT version FROM synthetic.schema_version", &[]).await)
        .get(0)
}

#[test]
fn instances_migrate_an_empty_database_at_once() {
    let Some(url) = database() else { return };
    all_open(&url, 3);
    assert_eq!(version(&url), 3);
}

#[test]
fn instances_bring_an_old_database_with_rows_up_at_once() {
    let Some(url) = database() else { return };
    all_open(&url, 1);
    with_postgres(&url, async |client| client.batch_execute("INSERT INTO synthetic.items VALUES (7)").await);
    all_open(&url, 3);
    let row = with_postgres(&url, async |client| {
        let sql = "SELECT n, name, (SELECT count(*) FROM synthetic.runs) FROM synthetic.items";
        client.query_one(sql, &[]).await
    });
    assert_eq!((row.get(0), row.get(1), row.get(2)), (7, "old", 1_i64));
    assert_eq!(version(&url), 3);
}

#[test]
fn a_newer_database_is_refused_and_left_alone() {
    let Some(url) = database() else { return };
    all_open(&url, 3);
    for opened in open_at_once(&url, 2) {
        let refused = opened.expect_err("it is too new").to_string();
        assert!(refused.contains("has schema version 3 of synthetic, and this binary knows up to 2"), "{refused}");
    }
    assert_eq!(version(&url), 3);
}

#[test]
fn a_migration_that_fails_leaves_the_version_before() {
    const BROKEN: PostgresSchema =
        PostgresSchema { name: "synthetic", migrations: &[MIGRATIONS[0], MIGRATIONS[1], "SELECT 1 / 0"] };
    let Some(url) = database() else { return };
    all_open(&url, 1);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let refused =
        runtime.block_on(Postgres::open(&url, &BROKEN)).map(drop).expect_err("it divides by zero").to_string();
    assert!(refused.contains("cannot migrate the database"), "{refused}");
    assert_eq!(version(&url), 1);
    all_open(&url, 3);
}
