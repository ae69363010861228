//! A start loads the view from its checkpoint and reads the later records. If the checkpoint is unusable, the start reads everything.

use std::fs;

use account_events::AccountStatus::{Active, Blocked, Deleted};
use event_log::Record;
use test_harness::wait_until;

use crate::service::{Settings, TestService, by_account, changed, created, new_id};

/// So many that the number of records read shows whether a start reads all of them.
const ACCOUNTS: usize = 20_000;

/// More than a start from a checkpoint reads again: eight ranges of 256 offsets in each of three partitions.
const FEW: u64 = 3 * 8 * 256 + 100;

struct Known {
    service: TestService,
    /// The event of the first one precedes all others.
    ids: Vec<String>,
}

/// A service that knows [`ACCOUNTS`] accounts, two of them with a card.
fn known() -> Known {
    let ids: Vec<_> = (0..ACCOUNTS).map(|_| new_id()).collect();
    let records: Vec<_> = ids.iter().map(|id| created(id)).collect();
    let service = TestService::start_behind(Settings::default(), |log, _| log.publish(&records));
    service.wait_until_ready();
    service.card("US", &ids[0]);
    service.card("US", &ids[ACCOUNTS - 1]);
    Known { service, ids }
}

fn number(service: &TestService, field: &str) -> u64 {
    service.view()[field].as_u64().expect("a number")
}

#[track_caller]
fn assert_loaded(service: &TestService) {
    let records = number(service, "records");
    assert!(records < FEW, "{records} records were read");
}

#[track_caller]
fn assert_read_whole(service: &TestService, records: usize) {
    assert_eq!(number(service, "records"), records as u64);
}

#[test]
fn a_restart_reads_a_few_records_and_knows_every_account() {
    let Known { service, ids } = known();
    let service = service.restart();
    assert_loaded(&service);
    assert_eq!(number(&service, "accounts"), ACCOUNTS as u64);
    assert!(ids.iter().step_by(97).all(|id| service.post_card("US", id).status == 201));
    service.post_card("US", &new_id()).expect(404);

    // The next checkpoint includes later events. Events without an effect are not counted again.
    let new = new_id();
    service.publish(&[
        created(&new),
        changed(&ids[1], Blocked, 2),
        changed(&ids[2], Deleted, 3),
        changed(&ids[2], Active, 2),
    ]);
    wait_until("the view has it", || {
        let view = service.view();
        (view["accounts"] == ACCOUNTS + 1 && view["blocked"] == 1 && view["deleted"] == 1 && view["lag"] == 0)
            .then_some(())
    });
    // The third start uses the checkpoint that a start from a checkpoint has written.
    let service = service.restart().restart();
    assert_loaded(&service);
    let view = service.view();
    assert_eq!((&view["accounts"], &view["blocked"], &view["deleted"]), (&20_001.into(), &1.into(), &1.into()));
    service.card("US", &new);
    service.card("US", &ids[3]);
    service.post_card("US", &ids[1]).expect(403);
    service.post_card("US", &ids[2]).expect(403);
}

#[test]
fn what_was_published_while_the_service_was_away_is_read_behind_the_checkpoint() {
    let Known { service, ids } = known();
    let new = new_id();
    let mut held = service.restart();
    // Its feed gets no record, as if the records were published after its end.
    held.switches.hold_feed(true);
    held.publish(&[created(&new), changed(&ids[5], Blocked, 2)]);
    let switches = held.switches.clone();
    held = held.restart_after(|_| switches.hold_feed(false));
    assert_loaded(&held);
    held.card("US", &new);
    held.post_card("US", &ids[5]).expect(403);
}

#[test]
fn the_checkpoint_of_another_log_is_not_used() {
    let records: Vec<_> = (0..ACCOUNTS + 5_000).map(|_| created(&new_id())).collect();
    // A log that ends earlier, a log that continues past the checkpoint's positions, and an empty one.
    for records in [&records[..100], &records, &[]] {
        let Known { service, ids } = known();
        let service = service.restart_on_another_log(records);
        // The records that identified the other log are read again from the start.
        assert!(number(&service, "records") >= records.len() as u64);
        assert_eq!(number(&service, "accounts"), records.len() as u64);
        for id in [&ids[0], &ids[ACCOUNTS - 1]] {
            service.post_card("US", id).expect(404);
        }
        if let Some(record) = records.first() {
            let id = String::from_utf8(record.key.clone().expect("a key")).expect("an id");
            service.card("US", &id);
            let service = service.restart();
            service.card("US", &id);
            assert_eq!(number(&service, "accounts"), records.len() as u64);
        }
    }
}

#[test]
fn accounts_deleted_long_ago_are_closed_again_in_a_database_put_back_to_an_older_copy() {
    let Known { service, ids } = known();
    service.tell(&[changed(&ids[0], Deleted, 2)]);
    service.wait_until_all_deleted(&by_account(&ids[0]));
    // So many that a start from the checkpoint does not read the deletion again.
    let later: Vec<_> = ids[1..].iter().map(|id| changed(id, Active, 2)).collect::<Vec<Record>>();
    service.tell(&later);

    let service = service.restart_with_an_older_database();
    assert_loaded(&service);
    let cards = |account: &str| service.get(&by_account(account)).body["cards"][0]["deleted"].clone();
    assert_eq!(cards(&ids[0]), true, "closed before the service is ready");
    assert_eq!(cards(&ids[ACCOUNTS - 1]), false);
    service.post_card("US", &ids[0]).expect(403);
}

/// The new content of a file; `None` if the file is removed.
type Damage = fn(Vec<u8>) -> Option<Vec<u8>>;

#[test]
fn without_a_checkpoint_or_with_a_damaged_one_everything_is_read() {
    let mut known = known();
    let damages: [Damage; 5] = [
        |_| None,
        |_| Some(Vec::new()),
        |bytes| Some(bytes[..bytes.len() - 1].to_vec()),
        |mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            Some(bytes)
        },
        |bytes| Some(vec![0; bytes.len()]),
    ];
    for damage in damages {
        let name = known.service.checkpoint_name();
        known.service = known.service.restart_after(|folder| {
            let path = folder.join(name);
            let bytes = fs::read(&path).expect("a checkpoint");
            match damage(bytes) {
                Some(bytes) => fs::write(&path, bytes).expect("a folder to write in"),
                None => fs::remove_file(&path).expect("a folder to write in"),
            }
        });
        assert_read_whole(&known.service, ACCOUNTS);
        assert_eq!(number(&known.service, "accounts"), ACCOUNTS as u64);
    }
    assert_loaded(&known.service.restart());
}

#[test]
fn a_place_that_cannot_be_written_costs_a_replay_and_nothing_else() {
    let Known { service, ids } = known();
    let name = service.checkpoint_name();
    let service = service.restart_after(|folder| {
        let path = folder.join(name);
        fs::remove_file(&path).expect("a checkpoint");
        // A file cannot replace a folder.
        fs::create_dir(&path).expect("a folder to write in");
    });
    assert_read_whole(&service, ACCOUNTS);
    let service = service.restart();
    assert_read_whole(&service, ACCOUNTS);
    service.card("US", &ids[0]);
}
