//! How fast the card service reads a whole topic into its view: a start with an empty folder until it is ready, beside a consumer
//! that reads the same topic and discards it.
//!
//! The group of the card closer has read the topic before, as at any start but the first one of a group.

use std::time::Instant;

use anyhow::ensure;

use crate::peers::kafka;
use crate::results::{Of, Results, Unit, grouped};
use crate::servers::Servers;
use crate::system::{Build, CARD_SERVICE, accounts_in_view, start_on_kafka, wait_until_ready};

/// Records, each of another account; a tenth of them for a quick look.
const RECORDS: u64 = 10_000_000;

/// Rounds, of which the medians are given.
const ROUNDS: usize = 3;

/// The consumer group of the card service.
const GROUP: &str = "card-service";

pub(crate) fn measure(builds: &[Build], servers: &Servers, quick: bool) -> anyhow::Result<Results> {
    let (records, rounds) = if quick { (RECORDS / 10, 1) } else { (RECORDS, ROUNDS) };
    println!("filling a topic with {records} records");
    let topic = kafka::new_topic(servers);
    kafka::fill(servers, &topic, records)?;
    kafka::skip_to_end(servers, &topic, GROUP)?;
    let (mut results, what) = (Results::default(), format!("view built from {} records in Kafka", grouped(records)));
    for round in 1..=rounds {
        println!("reading them: round {round} of {rounds}");
        for build in builds {
            results.add(&what, Unit::PerSecond, build.of, replay(build, servers, &topic, records)?);
        }
        if builds.len() == 1 {
            let rate = kafka::read_and_discard(servers, &topic, records)?;
            results.add(&what, Unit::PerSecond, Of::Other(kafka::NAME), rate);
        }
    }
    Ok(results)
}

/// Records a second, from the start of the process until it is ready.
fn replay(build: &Build, servers: &Servers, topic: &str, records: u64) -> anyhow::Result<f64> {
    let (folder, started) = (tempfile::tempdir()?, Instant::now());
    let settings = [("KAFKA_TOPIC", topic), ("KAFKA_GROUP_ID", GROUP)];
    let (mut process, cards) = start_on_kafka(build, CARD_SERVICE, folder.path(), servers, &settings);
    wait_until_ready(&cards)?;
    let seconds = started.elapsed().as_secs_f64();
    let accounts = accounts_in_view(&cards);
    ensure!(accounts == records, "the view has {accounts} of {records} accounts");
    ensure!(process.terminate().success(), "the card service failed: {:#?}", process.lines());
    Ok(records as f64 / seconds)
}
