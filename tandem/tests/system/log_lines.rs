//! What the binaries log: the seed's lines, as JSON where nobody watches, and few of them however many events there are.

use std::time::Duration;

use account_events::{AccountId, AccountStatus};
use serde_json::Value;
use tempfile::TempDir;
use test_harness::{Process, binary, wait_until};
use uuid::Uuid;

use crate::events::record;
use crate::kafka::Kafka;
use crate::place::Place;
use crate::requests::{create_account, create_card};

/// More events than lines anybody wants.
const EVENTS: u64 = 5_000;

/// The limit of the feed (`accounts/feed/sampled_log.rs`).
const MAX_LINES_PER_SECOND: u64 = 10;

fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

/// Waits for the seed's three lines, in their order.
fn expect_seed_lines(process: &Process, id: AccountId) {
    let expected = [
        "Kafka consumer started successfully".to_owned(),
        format!("Received account event: type=account.created, account_id={id}, status=ACTIVE"),
        format!("Updated account cache: account_id={id}, status=ACTIVE"),
    ];
    wait_until("the seed's lines are logged", || {
        let lines = process.logged();
        let places = expected.iter().map(|text| lines.iter().position(|line| message(line) == text));
        let places: Option<Vec<_>> = places.collect();
        places.is_some_and(|places| places.is_sorted()).then_some(())
    });
}

/// Everything that `process` has logged is JSON, a line each, with time and level.
fn expect_json_lines(process: &Process) {
    let (lines, logged) = (process.lines(), process.logged());
    assert!(!lines.is_empty() && lines.len() == logged.len(), "{lines:#?}");
    for line in logged {
        let time = line["timestamp"].as_str().unwrap_or_default();
        assert!(time.ends_with('Z') && line["level"].is_string() && !message(&line).is_empty(), "{line}");
    }
}

#[test]
fn the_all_in_one_logs_the_seeds_lines_as_json() {
    let place = Place::durable();
    let mut tandem = place.start_all_in_one();
    tandem.ready_service(card_service::NAME);
    let id = create_account(&tandem.ready_service(account_service::NAME));
    expect_seed_lines(&tandem, id);
    assert!(tandem.terminate().success());
    expect_json_lines(&tandem);
}

#[test]
fn the_services_log_the_seeds_lines_as_json() {
    let place = Place::kafka();
    let (mut account_service, mut card_service) = (place.start(account_service::NAME), place.start(card_service::NAME));
    card_service.ready_service(card_service::NAME);
    let id = create_account(&account_service.ready_service(account_service::NAME));
    expect_seed_lines(&card_service, id);
    assert!(account_service.terminate().success() && card_service.terminate().success());
    expect_json_lines(&account_service);
    expect_json_lines(&card_service);
}

#[test]
fn a_replay_logs_a_few_lines_and_says_how_many_it_left_out() {
    let place = Place::kafka();
    let ids: Vec<_> = (0..EVENTS).map(|_| AccountId(Uuid::new_v4())).collect();
    let record = |id: &AccountId| record(*id, 1, AccountStatus::Active);
    place.publish(&ids.iter().map(record).collect::<Vec<_>>());

    let started = std::time::Instant::now();
    let mut card_service = place.start(card_service::NAME);
    let cards = card_service.ready_service(card_service::NAME);
    for id in [ids[0], ids[ids.len() - 1]] {
        create_card(&cards, id).expect(201);
    }
    // Each event was logged, or is counted in a line that says so.
    let logged = wait_until("every event is accounted for", || {
        let lines = card_service.logged();
        let count = |text| lines.iter().filter(|line| message(line).starts_with(text)).count() as u64;
        let left_out = lines.iter().filter(|line| message(line).starts_with("left out the lines of"));
        let left_out: u64 = left_out.filter_map(|line| line["events"].as_u64()).sum();
        let logged = count("Received account event:");
        assert_eq!(count("Updated account cache:"), logged, "the two lines go together");
        (logged + left_out == EVENTS).then_some(logged)
    });
    let seconds = started.elapsed().as_secs() + 1;
    assert!(logged >= 1 && logged <= MAX_LINES_PER_SECOND * seconds, "{logged} lines in {seconds} s");
}

#[test]
fn a_rebuild_that_takes_its_time_shows_how_far_it_is() {
    // Always the mock: no other Kafka is slow at will.
    let kafka = Kafka::mock();
    let ids: Vec<_> = (0..30).map(|_| AccountId(Uuid::new_v4())).collect();
    let records: Vec<_> = ids.iter().map(|id| record(*id, 1, AccountStatus::Active)).collect();
    kafka.publish(&records);
    // Asking where the topic ends takes four answers, and so does opening a reader: more than two seconds.
    kafka.set_round_trip_time(Duration::from_millis(600));
    let folder = TempDir::new().unwrap();
    let mut cards = Process::start(&binary("card-service"), folder.path(), &[("KAFKA_BROKERS", &kafka.brokers)]);
    let progress = wait_until("progress is logged", || {
        cards.logged().into_iter().find(|line| message(line) == "the account view is being rebuilt")
    });
    assert_eq!(progress["left"], 30, "{progress}");
    assert!(progress["records"].is_u64() && progress["records_per_second"].is_u64(), "{progress}");
    kafka.set_round_trip_time(Duration::ZERO);
    create_card(&cards.ready_service(card_service::NAME), ids[0]).expect(201);
    let done = cards.logged().into_iter().find(|line| message(line) == "the account view holds every account");
    assert_eq!(done.expect("it says so")["records"], 30);
}
