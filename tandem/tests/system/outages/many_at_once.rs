//! Starts: five instances of each service at once on an empty database, and one on a database of a later version. Migrations
//! of an older one are tested in `crates/postgres/tests/migrations.rs`.

use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use test_harness::{binary, output_of, postgres_database, with_postgres};

use crate::cluster::{Cluster, Writer, settle, under_load};
use crate::kafka::Isolation;
use crate::random::{Random, seed};
use crate::servers;

/// Instances of each service.
const INSTANCES: usize = 5;

/// A version of a schema that no binary knows.
const LATER: i32 = 1_000;

#[test]
fn five_instances_of_each_service_come_up_at_once_and_one_that_is_too_old_says_so() {
    let Some((brokers, server)) = servers::shared() else { return };
    let (mut random, database) = (Random::new(seed()), postgres_database(&server));
    come_up_at_once(&mut random, (brokers.clone(), database.clone()));
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

/// Starts all instances, and has them work.
fn come_up_at_once(random: &mut Random, servers: (String, String)) {
    let started = Instant::now();
    let cluster = Cluster::start("many", servers, INSTANCES, INSTANCES);
    eprintln!("{INSTANCES} instances of each service were ready after {:?}", started.elapsed());
    let mut writers: Vec<_> = (0..INSTANCES).map(|_| Writer::new(random.next())).collect();
    under_load(&cluster, &mut writers, Duration::ZERO, |load| load.wait_for(200));
    writers.iter().for_each(Writer::check_none_failed);
    settle(&cluster);
    let tables = cluster.tables();
    tables.check(&writers);
    tables.check_topic(&cluster.read_topic(Isolation::Committed));
}
