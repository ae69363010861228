//! A checkpoint is restored exactly, or refused.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32};

use account_events::{AccountEvent, EventType};
use proptest::prelude::*;
use test_harness::mangled;
use uuid::Uuid;

use super::*;
use crate::accounts::view::account_view;
use crate::accounts::view::shard::words;

const DATABASE: CardDatabase = CardDatabase { id: 5, last_card: 77 };

fn id(n: u32) -> AccountId {
    AccountId(Uuid::from_u128(u128::from(n)))
}

fn event(account: u32, status: AccountStatus, version: u32) -> AccountEvent {
    AccountEvent { event_type: EventType::StatusChanged, account_id: id(account), status, version: Some(version) }
}

/// A view of so many `accounts`, a third of them with each status.
fn view_of(accounts: u32) -> (ViewWriter, AccountView) {
    let (mut writer, view) = account_view();
    for n in 0..accounts {
        writer.apply(&event(n, AccountStatus::ALL[n as usize % 3], n + 1));
    }
    (writer, view)
}

fn mark() -> Mark {
    let samples = vec![Sample { offset: 256, hash: u64::MAX }, Sample { offset: 513, hash: 7 }];
    let reached = [(0, Reached { position: 600, samples }), (1, Reached::default())];
    Mark(reached.into_iter().collect())
}

fn written(view: &AccountView) -> Vec<u8> {
    let mut bytes = Vec::new();
    assert!(write(view, (&mark(), DATABASE), &mut bytes, &|| true).unwrap());
    bytes
}

fn read_back(bytes: &[u8]) -> Result<Checkpoint, Unusable> {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    read(&file)
}

fn restored(bytes: &[u8]) -> (ViewWriter, AccountView) {
    let (mut writer, view) = account_view();
    assert_eq!(writer.restore(read_back(bytes).unwrap()), view.len());
    (writer, view)
}

#[test]
fn what_is_read_is_what_was_written_and_can_be_gone_on_with() {
    for accounts in [0, 1, 30_000] {
        let (_, view) = view_of(accounts);
        let bytes = written(&view);
        let read = read_back(&bytes).unwrap();
        assert_eq!((read.mark, read.database), (mark(), DATABASE));
        let (mut writer, again) = restored(&bytes);
        assert_eq!(again.0.seeds(), view.0.seeds());
        assert_eq!(again.len(), u64::from(accounts));
        for status in AccountStatus::ALL {
            assert_eq!(again.count(status), view.count(status));
        }
        assert!((0..accounts).all(|n| again.get(id(n)) == view.get(id(n)) && again.get(id(n)).is_some()));
        assert!(again.get(id(accounts)).is_none());
        assert_eq!(written(&again), bytes, "the restored view gives the same file");
        // The restored view grows as the original does.
        for n in 0..2 * accounts {
            writer.apply(&event(n, AccountStatus::Blocked, 1_000_000));
        }
        assert_eq!(again.len(), u64::from(2 * accounts));
        assert!((0..2 * accounts).all(|n| again.get(id(n)).is_some()));
    }
}

#[test]
fn a_file_cut_anywhere_is_noticed() {
    let bytes = written(&view_of(10).1);
    for length in 0..bytes.len() {
        assert!(matches!(read_back(&bytes[..length]), Err(Unusable::Cut)), "cut at {length}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(read_back(&longer), Err(Unusable::Damaged(_))));
}

#[test]
fn a_garbled_byte_is_noticed_wherever_it_is() {
    let mut bytes = written(&view_of(10).1);
    for place in 0..bytes.len() {
        bytes[place] ^= 1 << (place % 8);
        match read_back(&bytes) {
            Err(Unusable::Damaged(_) | Unusable::Cut) => {}
            Err(Unusable::Foreign) if place < MAGIC.len() => {}
            other => panic!("garbled at {place}: {:?}", other.err()),
        }
        bytes[place] ^= 1 << (place % 8);
    }
    read_back(&bytes).unwrap();
}

proptest! {
    #[test]
    fn fuzz_a_changed_file_is_refused(bytes in mangled(vec![written(&view_of(10).1), written(&view_of(0).1)])) {
        if read_back(&bytes).is_ok() {
            let (_, view) = restored(&bytes);
            prop_assert_eq!(written(&view), bytes);
        }
    }
}

#[test]
fn what_is_not_ours_is_noticed() {
    let other_version = [b"tdmView1", &written(&view_of(10).1)[8..]].concat();
    for bytes in [&other_version[..], b"SQLite format 3\0", &[0; 4_096]] {
        assert!(matches!(read_back(bytes), Err(Unusable::Foreign)));
    }
    let (_, view) = view_of(10);
    // As if another hash function had been used.
    view.0.seeds[0].fetch_add(1, Ordering::Relaxed);
    assert!(matches!(read_back(&written(&view)), Err(Unusable::Foreign)));
}

#[test]
fn it_is_given_up_between_two_shards() {
    let left = std::cell::Cell::new(3);
    let go_on = || left.replace(left.get() - 1) > 0;
    let mut bytes = Vec::new();
    assert!(!write(&view_of(1_000).1, (&mark(), DATABASE), &mut bytes, &go_on).unwrap());
    assert!(read_back(&bytes).is_err());
}

#[test]
fn a_view_that_goes_on_changing_while_it_is_written_is_read_whole() {
    const BEFORE: u32 = 20_000;
    const AFTER: u32 = 300_000;
    let (mut writer, view) = view_of(BEFORE);
    let (known, all) = (AtomicU32::new(BEFORE), AtomicBool::new(false));
    let files = std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in BEFORE..AFTER {
                writer.apply(&event(n, AccountStatus::Active, 1));
                known.store(n, Ordering::Release);
                writer.apply(&event(n % BEFORE, AccountStatus::Blocked, n));
            }
            all.store(true, Ordering::Release);
        });
        let mut files = Vec::new();
        while files.is_empty() || !all.load(Ordering::Acquire) {
            files.push((known.load(Ordering::Acquire), written(&view)));
        }
        files
    });
    for (known, bytes) in files {
        let (_, again) = restored(&bytes);
        assert!((0..known).all(|n| again.get(id(n)).is_some()), "the view has every account before the mark");
        let found = (0..AFTER).filter(|n| again.get(id(*n)).is_some()).count();
        assert_eq!(again.len(), found as u64, "no account is hidden behind a free slot");
    }
}

#[test]
fn a_shard_that_changes_while_it_is_copied_hides_no_account() {
    const SLOTS: u32 = 128;
    // Two accounts that belong to each slot: the second one probes past the first.
    let belongs = |id: [u32; 4]| id[3] / 2;
    let place = |slot: u32| (u64::from(slot) << 32).div_ceil(SLOTS.into()) as u32;
    for (spacing, phase) in (3..20).flat_map(|spacing| (0..spacing).map(move |phase| (spacing, phase))) {
        let shard = Shard::with_capacity(100);
        assert_eq!(shard.slot_count(), SLOTS as usize);
        let mut bytes = Vec::new();
        let take_two = |slot: u32| {
            for number in [2 * slot, 2 * slot + 1] {
                let id = words(id(number));
                if let (Err(free), false) = (shard.find(id, place(slot)), shard.is_full()) {
                    shard.insert(free, id, 1);
                }
            }
        };
        take_two(phase);
        shard.copy_while(&mut bytes, |copied| {
            // Where it was just copied, or was free, and around it: the last slot's second account is in the first one.
            if copied as u32 % spacing == phase {
                [SLOTS - 1, 0, 1].iter().for_each(|distance| take_two((copied as u32 + distance) % SLOTS));
            }
        });
        let copy = Shard::from_bytes(&bytes);
        assert!(copy.accounts().count() >= 2);
        for (id, _) in copy.accounts() {
            assert!(copy.find(id, place(belongs(id))).is_ok(), "account {} is hidden ({spacing}, {phase})", id[3]);
        }
    }
}

#[test]
fn all_deleted_accounts_are_returned_shard_by_shard() {
    let (writer, view) = view_of(3_000);
    let mut deleted: Vec<_> = (0..).map_while(|shard| writer.deleted_accounts(shard)).flatten().collect();
    deleted.sort();
    deleted.dedup();
    assert_eq!(deleted.len() as u64, view.count(AccountStatus::Deleted));
    assert!(deleted.iter().all(|id| view.get(*id).unwrap().status == AccountStatus::Deleted));
}

#[test]
fn a_view_that_is_cleared_is_empty() {
    let (mut writer, view) = view_of(1_000);
    writer.clear();
    assert!(view.is_empty() && AccountStatus::ALL.iter().all(|status| view.count(*status) == 0));
    assert!((0..1_000).all(|n| view.get(id(n)).is_none()));
    writer.apply(&event(1, AccountStatus::Active, 1));
    assert_eq!(view.len(), 1);
}
