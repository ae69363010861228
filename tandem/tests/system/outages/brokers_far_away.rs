//! The brokers are far away: every answer of theirs takes a while, and opening a publisher takes many answers. Two instances
//! that would publish do not keep each other from it.

use std::time::{Duration, Instant};

use test_harness::{Process, binary, postgres_database, wait_until};

use crate::cluster::count;
use crate::kafka::Kafka;
use crate::requests::create_account;
use crate::servers;

/// Opening a publisher takes about thirty of them: longer than the lease on publishing lasts.
const ROUND_TRIP: Duration = Duration::from_millis(100);

#[test]
fn far_from_the_brokers_one_of_two_instances_publishes() {
    let Some((_, server)) = servers::shared() else { return };
    let (kafka, database) = (Kafka::mock(), postgres_database(&server));
    kafka.set_round_trip_time(ROUND_TRIP);
    let folder = tempfile::TempDir::new().expect("a folder");
    let settings = [("KAFKA_BROKERS", kafka.brokers.as_str()), ("DATABASE_URL", &database)];
    let mut instances = [(); 2].map(|()| Process::start(&binary(account_service::NAME), folder.path(), &settings));
    let [http, _] = instances.each_mut().map(|instance| instance.ready_service(account_service::NAME));
    let started = Instant::now();
    create_account(&http);
    wait_until("its event is published", || {
        (count(&database, "SELECT count(*) FROM account.outbox") == 0).then_some(())
    });
    eprintln!("published after {:?}", started.elapsed());
}
