//! Starts: five instances of each service at once on an empty database and on one of an older version, and one on a database of
//! a later version.

use std::process::Command;
use std::time::{Duration, Instant};

use account_events::{AccountId, AccountStatus};
use tempfile::TempDir;
use test_harness::{binary, output_of, postgres_database, with_postgres};
use uuid::Uuid;

use crate::cluster::{Account, Cluster, Writer, settle, under_load};
use crate::kafka::Isolation;
use crate::random::{Random, seed};
use crate::servers;

/// Instances of each service.
const INSTANCES: usize = 5;

/// Version 1 of the account database.
const VERSION_1: &str = include_str!("../../../../services/account/migrations/postgres-1.sql");

/// A version of a schema that no binary knows.
const LATER: i32 = 1_000;

#[test]
fn five_instances_of_each_service_come_up_at_once_and_one_that_is_too_old_says_so() {
    let Some((brokers, server)) = servers::shared() else { return };
    let (mut random, database) = (Random::new(seed()), postgres_database(&server));
    come_up_at_once(&mut random, (brokers.clone(), database.clone()), None);
    for (service, schema) in [(account_service::NAME, "account"), (card_service::NAME, "card")] {
        with_postgres(&database, async |client| {
            client.batch_execute(&format!("UPDATE {schema}.schema_version SET version = {LATER}")).await
        });
        let folder = TempDir::new().expect("a folder");
        let mut command = Command::new(binary(service));
        command.current_dir(&folder).env_clear();
        command.envs([("PORT", "0"), ("KAFKA_BROKERS", &brokers), ("DATABASE_URL", &database)]);
        let output = output_of(&mut command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        let expected = format!("the database has schema version {LATER} of {schema}, and this binary knows up to ");
        assert!(said.contains(&expected) && said.contains("start the newer binary"), "{said}");
    }
}

#[test]
fn five_instances_of_each_service_bring_an_old_database_up_at_once() {
    let Some((brokers, server)) = servers::shared() else { return };
    let (mut random, database) = (Random::new(seed()), postgres_database(&server));
    let id = Uuid::new_v4();
    with_postgres(&database, async |client| {
        // As an instance of that version leaves it that has made an account, and not yet published it.
        let with = format!(
            "CREATE SCHEMA account;
             CREATE TABLE account.schema_version (version int NOT NULL);
             INSERT INTO account.schema_version VALUES (1);
             {VERSION_1}
             INSERT INTO account.accounts
             VALUES (nextval('account.account_sequence'), '{id}', 'John Doe', 'US', 'ACTIVE', 1, 7, 7);
             UPDATE account.ledger SET active = 1, last_outbox_sequence = 7;
             INSERT INTO account.outbox VALUES (
                 7, '{id}', 'account.created', 'ACTIVE', 1, 7, '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01')"
        );
        client.batch_execute(&with).await
    });
    let account = Account { id: AccountId(id), status: AccountStatus::Active, version: 1, perhaps: None };
    come_up_at_once(&mut random, (brokers, database.clone()), Some(account));
    // A column of each later version, and the number of the last.
    let versions = with_postgres(&database, async |client| {
        let sql = "SELECT version FROM account.schema_version, account.relay_lease, account.ledger
                   WHERE resync_done = 0 AND previous_outbox_sequence >= 7";
        client.query(sql, &[]).await
    });
    let versions: Vec<i32> = versions.iter().map(|row| row.get(0)).collect();
    assert_eq!(versions, [3]);
}

/// Starts all instances, and has them work. `before` is the account that is there already.
fn come_up_at_once(random: &mut Random, servers: (String, String), before: Option<Account>) {
    let started = Instant::now();
    let cluster = Cluster::start("many", servers, INSTANCES, INSTANCES);
    eprintln!("{INSTANCES} instances of each service were ready after {:?}", started.elapsed());
    let mut writers: Vec<_> = (0..INSTANCES).map(|_| Writer::new(random.next())).collect();
    writers[0].accounts.extend(before);
    under_load(&cluster, &mut writers, Duration::ZERO, |load| load.wait_for(200));
    writers.iter().for_each(Writer::check_none_failed);
    settle(&cluster);
    let tables = cluster.tables();
    tables.check(&writers);
    tables.check_topic(&cluster.read_topic(Isolation::Committed));
}
