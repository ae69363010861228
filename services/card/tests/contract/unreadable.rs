//! Records that the view cannot read: a stalled partition, a damaged batch, deleted records.

use event_log::{PassedOver, Positions};
use test_harness::wait_until;

use crate::service::{Settings, TestService, created, new_id};

#[test]
fn a_log_that_brings_nothing_though_it_has_more_is_a_failure_and_cards_go_on() {
    let service = TestService::start();
    let account = service.account();
    service.switches.hold_feed(true);
    let new = new_id();
    service.publish(&[created(&new)]);
    let failure = wait_until("it shows", || service.view()["failure"].as_str().map(str::to_owned));
    assert!(failure.starts_with("partition ") && failure.contains("has brought nothing"), "{failure}");
    service.card("US", &account);
    assert_ne!(service.view()["lag"], 0);
    service.switches.hold_feed(false);
    wait_until("it is over", || (service.view()["failure"].is_null()).then_some(()));
    service.card("US", &new);
}

#[test]
fn a_reader_that_brings_nothing_any_more_is_replaced() {
    let service = TestService::start();
    service.account();
    service.switches.stick_open_readers();
    let new = new_id();
    service.publish(&[created(&new)]);
    wait_until("a new reader brings it", || (service.post_card("US", &new).status == 201).then_some(()));
    wait_until("no failure is left", || service.view()["failure"].is_null().then_some(()));
}

#[test]
fn a_batch_that_was_passed_over_is_in_quarantine() {
    let mut service = TestService::start();
    service.switches.pass_over(PassedOver { partition: 2, offset: 41, reason: "the test damaged it".to_owned() });
    wait_until("it is counted", || (service.view()["quarantined"] == 1).then_some(()));
    service.card("US", &service.account());
    let rows = service.stop_and_read_quarantine();
    assert_eq!(rows, [(2, 41, "unreadable_batch".to_owned(), None, None, "[]".to_owned())]);
}

#[test]
fn a_view_keeps_what_its_checkpoint_has_when_the_log_has_lost_it_and_says_so() {
    let accounts: Vec<_> = (0..1_000).map(|_| new_id()).collect();
    let records: Vec<_> = accounts.iter().map(|id| created(id)).collect();
    let mut ends = Positions::new();
    let service = TestService::start_behind(Settings::default(), |log, _| {
        log.publish(&records);
        ends = log.ends();
    });
    service.wait_until_ready();
    service.switches.delete_before(ends);
    // Twice: the first restart writes no poorer checkpoint.
    let service = service.restart().restart();
    let view = wait_until("there is no lag", || Some(service.view()).filter(|view| view["lag"] == 0));
    assert_eq!((&view["accounts"], &view["records"]), (&1_000.into(), &0.into()));
    let warnings = view["warnings"].to_string();
    assert!(warnings.contains("older records were deleted, and the view keeps"), "{warnings}");
    service.card("US", &accounts[0]);
    service.post_card("US", &new_id()).expect(404);
    let new = new_id();
    service.publish(&[created(&new)]);
    wait_until("the view follows the log", || (service.post_card("US", &new).status == 201).then_some(()));
}
