//! A start that reads the whole log: with `REBUILD_VIEW=true`, or without a checkpoint.

use std::path::Path;

use event_log::partition_of_key;
use rusqlite::Connection;
use serde_json::Value;
use test_harness::{database_url, wait_until, with_postgres};

use crate::service::{TestService, changed, created, new_id};

/// Stores the first record of `partition` in quarantine, as a version that could not decode it has done.
fn quarantine_first(folder: &Path, partition: u32) {
    let row = format!("({partition}, 0, 'unknown_type', '', NULL, NULL, '[]', 0)");
    let url = database_url(folder, "card");
    match url.strip_prefix("sqlite:") {
        Some(path) => {
            let sql = format!("INSERT INTO quarantine VALUES {row}");
            Connection::open(path).and_then(|database| database.execute_batch(&sql)).expect("a database");
        }
        None => with_postgres(&url, async |client| {
            client.batch_execute(&format!("INSERT INTO card.quarantine VALUES {row}")).await
        }),
    }
}

fn quarantined(service: &TestService) -> Value {
    service.get("/quarantine").expect(200)["total"].take()
}

/// A service with an account whose partition has more records than a start with a checkpoint reads, and that partition.
fn with_a_long_log() -> (TestService, u32) {
    let service = TestService::start();
    let id = new_id();
    service.tell(&[created(&id)]);
    let changes: Vec<_> =
        (2..3_000).map(|version| changed(&id, account_events::AccountStatus::Active, version)).collect();
    service.tell(&changes);
    (service, partition_of_key(id.as_bytes(), 3))
}

#[test]
fn a_rebuild_reads_the_whole_log_and_empties_the_quarantine_of_what_decodes_now() {
    let (service, partition) = with_a_long_log();
    let service = service.restart_after(|folder| quarantine_first(folder, partition));
    let records = service.view()["records"].as_u64().expect("a number");
    assert!(records < 2_999, "a start with a checkpoint reads the last records: {records}");
    assert_eq!(quarantined(&service), 1);

    let service = service.restart_rebuilding();
    assert_eq!(service.view()["records"], 2_999);
    wait_until("the record has left the quarantine", || (quarantined(&service) == 0).then_some(()));
    // The rebuilt view has a checkpoint again.
    assert_eq!(service.view()["accounts"], 1);
}

#[test]
fn any_start_that_reads_the_whole_log_empties_the_quarantine_of_what_decodes_now() {
    let (service, partition) = with_a_long_log();
    let name = service.checkpoint_name();
    let service = service.restart_after(|folder| {
        quarantine_first(folder, partition);
        std::fs::remove_file(folder.join(name)).expect("a checkpoint");
    });
    assert_eq!(service.view()["records"], 2_999);
    wait_until("the record has left the quarantine", || (quarantined(&service) == 0).then_some(()));
}

#[test]
fn a_record_that_still_cannot_be_decoded_stays_in_quarantine() {
    let service = TestService::start();
    let id = new_id();
    let poison = event_log::Record { key: Some(id.clone().into()), value: Some(b"{".to_vec()), ..Default::default() };
    service.tell(&[created(&id), poison]);
    wait_until("the record is in quarantine", || (quarantined(&service) == 1).then_some(()));
    let service = service.restart_rebuilding();
    assert_eq!((service.view()["records"].clone(), quarantined(&service)), (2.into(), 1.into()));
}
