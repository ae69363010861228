//! The view as a pure function of the log (ARCHITECTURE.md C2), against a model and under generated histories.

use std::collections::HashMap;

use account_events::{EventType, MAX_VERSION};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn id(n: u32) -> AccountId {
    AccountId(Uuid::from_u128(u128::from(n)))
}

fn event(account: u32, status: AccountStatus, version: Option<Version>) -> AccountEvent {
    AccountEvent { event_type: EventType::StatusChanged, account_id: id(account), status, version }
}

fn view_of(events: &[AccountEvent]) -> AccountView {
    let (mut writer, view) = account_view();
    events.iter().for_each(|event| _ = writer.apply(event));
    view
}

/// The view's states of the first accounts.
fn contents(view: &AccountView) -> Vec<Option<AccountState>> {
    (0..ACCOUNTS).map(|n| view.get(id(n))).collect()
}

const ACCOUNTS: u32 = 12;

/// A history that an account service can publish: one status for each version of an account, and none after the deletion.
fn history() -> impl Strategy<Value = Vec<AccountEvent>> {
    let account = prop::collection::vec(prop::bool::ANY, 0..6).prop_flat_map(|later| (Just(later), prop::bool::ANY));
    prop::collection::vec(account, ACCOUNTS as usize).prop_map(|accounts| {
        let mut events = Vec::new();
        for (account, (later, deleted)) in accounts.into_iter().enumerate() {
            let blocked = |blocked| if blocked { AccountStatus::Blocked } else { AccountStatus::Active };
            let mut statuses: Vec<_> =
                std::iter::once(AccountStatus::Active).chain(later.into_iter().map(blocked)).collect();
            statuses.extend(deleted.then_some(AccountStatus::Deleted));
            let numbered = statuses.into_iter().zip(1..);
            events.extend(numbered.map(|(status, version)| event(account as u32, status, Some(version))));
        }
        events
    })
}

/// A history with a shuffled, repeated copy of itself.
fn history_and_delivery() -> impl Strategy<Value = (Vec<AccountEvent>, Vec<AccountEvent>)> {
    history().prop_flat_map(|events| {
        let copies = prop::collection::vec(1..4usize, events.len());
        let delivered = (Just(events.clone()), copies).prop_flat_map(|(events, copies)| {
            let repeated: Vec<_> =
                events.iter().zip(copies).flat_map(|(event, count)| std::iter::repeat_n(*event, count)).collect();
            Just(repeated).prop_shuffle()
        });
        (Just(events), delivered)
    })
}

proptest! {
    #[test]
    fn any_order_and_any_repetition_give_the_same_view((events, delivered) in history_and_delivery()) {
        prop_assert_eq!(contents(&view_of(&delivered)), contents(&view_of(&events)));
    }

    #[test]
    fn the_highest_version_wins((events, delivered) in history_and_delivery()) {
        let last: HashMap<AccountId, AccountEvent> = events.iter().map(|event| (event.account_id, *event)).collect();
        let view = view_of(&delivered);
        prop_assert_eq!(view.len(), last.len() as u64);
        for status in AccountStatus::ALL {
            let count = last.values().filter(|event| event.status == status).count();
            prop_assert_eq!(view.count(status), count as u64);
        }
        for (id, event) in last {
            prop_assert_eq!(view.get(id), Some(AccountState { status: event.status, version: event.version }));
        }
    }

    #[test]
    fn a_history_cut_off_and_read_again_from_anywhere_gives_the_same_view(
        (events, delivered) in history_and_delivery(), cut in any::<prop::sample::Index>(), from in any::<prop::sample::Index>(),
    ) {
        let (mut writer, view) = account_view();
        let cut = cut.index(delivered.len() + 1);
        for event in &delivered[..cut] {
            writer.apply(event);
        }
        for event in &delivered[from.index(cut + 1)..] {
            writer.apply(event);
        }
        prop_assert_eq!(contents(&view), contents(&view_of(&events)));
    }

    #[test]
    fn a_compacted_history_gives_the_same_view(events in history()) {
        let last: HashMap<AccountId, AccountEvent> = events.iter().map(|event| (event.account_id, *event)).collect();
        let compacted: Vec<_> = last.into_values().collect();
        prop_assert_eq!(contents(&view_of(&compacted)), contents(&view_of(&events)));
    }

    #[test]
    fn without_versions_the_order_of_arrival_decides_and_deleted_is_final(
        statuses in prop::collection::vec(prop::sample::select(AccountStatus::ALL.to_vec()), 1..10),
    ) {
        let events: Vec<_> = statuses.iter().map(|status| event(1, *status, None)).collect();
        let expected = if statuses.contains(&AccountStatus::Deleted) { AccountStatus::Deleted } else { statuses[statuses.len() - 1] };
        let view = view_of(&events);
        prop_assert_eq!(view.get(id(1)), Some(AccountState { status: expected, version: None }));
        let counts = AccountStatus::ALL.map(|status| view.count(status));
        prop_assert_eq!(counts, AccountStatus::ALL.map(|status| u64::from(status == expected)));
    }

    #[test]
    fn without_versions_a_creation_counts_by_its_arrival_too(
        events in prop::collection::vec((prop::bool::ANY, prop::sample::select(AccountStatus::ALL.to_vec())), 1..10),
    ) {
        // A creation has version 1, whether its event says so or not.
        let events: Vec<_> = events.into_iter().map(|(is_creation, status)| match is_creation {
            true => event(1, AccountStatus::Active, Some(1)),
            false => event(1, status, None),
        }).collect();
        let deleted = events.iter().any(|event| event.status == AccountStatus::Deleted);
        let expected = if deleted { AccountStatus::Deleted } else { events[events.len() - 1].status };
        prop_assert_eq!(view_of(&events).get(id(1)).map(|state| state.status), Some(expected));
    }

    #[test]
    fn events_that_are_gathered_do_what_they_do_one_by_one(
        events in prop::collection::vec(
            (0..ACCOUNTS, prop::sample::select(AccountStatus::ALL.to_vec()), prop::option::of(1..4u32)), 0..400,
        ),
        known in any::<prop::sample::Index>(),
        settled in any::<prop::sample::Index>(),
    ) {
        let events: Vec<_> = events.into_iter().map(|(account, status, version)| event(account, status, version)).collect();
        let (known, settled) = (known.index(events.len() + 1), settled.index(events.len() + 1));
        let (known, settled) = (known.min(settled), settled.max(known));
        let (mut writer, view) = account_view();
        events[..known].iter().for_each(|event| _ = writer.apply(event));
        for events in [&events[known..settled], &events[settled..]] {
            events.iter().for_each(|event| writer.gather(event));
            writer.settle();
        }
        let expected = view_of(&events);
        prop_assert_eq!(contents(&view), contents(&expected));
        prop_assert_eq!(view.len(), expected.len());
        for status in AccountStatus::ALL {
            prop_assert_eq!(view.count(status), expected.count(status));
        }
    }

    #[test]
    fn a_state_survives_packing(version in prop::option::of(1..=MAX_VERSION), index in 0..3usize) {
        let status = AccountStatus::ALL[index];
        prop_assert_eq!(unpack(pack(status, version)), AccountState { status, version });
    }
}

#[test]
fn deleted_is_final_even_for_a_higher_version() {
    let view = view_of(&[
        event(1, AccountStatus::Deleted, Some(2)),
        event(1, AccountStatus::Active, Some(MAX_VERSION)),
        event(1, AccountStatus::Active, None),
    ]);
    assert_eq!(view.get(id(1)), Some(AccountState { status: AccountStatus::Deleted, version: Some(2) }));
}

#[test]
fn an_event_without_a_version_never_overrides_one_with() {
    let view = view_of(&[event(1, AccountStatus::Blocked, Some(2)), event(1, AccountStatus::Active, None)]);
    assert_eq!(view.get(id(1)), Some(AccountState { status: AccountStatus::Blocked, version: Some(2) }));
    let view = view_of(&[event(1, AccountStatus::Active, None), event(1, AccountStatus::Blocked, Some(1))]);
    assert_eq!(view.get(id(1)), Some(AccountState { status: AccountStatus::Blocked, version: Some(1) }));
}

#[test]
fn a_hundred_thousand_accounts_are_all_found_and_no_other() {
    let (mut writer, view) = account_view();
    for n in 0..100_000 {
        assert!(writer.apply(&event(n * 2, AccountStatus::Active, Some(1))));
    }
    assert_eq!(view.len(), 100_000);
    for n in 0..100_000 {
        assert!(view.get(id(n * 2)).is_some());
        assert!(view.get(id(n * 2 + 1)).is_none());
    }
}

#[test]
fn a_view_that_was_gathered_is_as_large_as_one_that_grew() {
    for accounts in [0, 1, 1_000, 60_000] {
        // Each account has two events, and there are many more events than one sort takes.
        let events: Vec<_> =
            (0..2 * accounts).map(|n| event(n % accounts, AccountStatus::Blocked, Some(1 + n))).collect();
        let (mut writer, view) = account_view();
        // Both views hash ids alike.
        let (mut grown, other) = account_view();
        grown
            .table
            .seeds
            .iter()
            .zip(writer.table.seeds())
            .for_each(|(seed, value)| seed.store(value, Ordering::Relaxed));
        events.iter().for_each(|event| writer.gather(event));
        assert!(view.is_empty());
        writer.settle();
        events.iter().for_each(|event| _ = grown.apply(event));
        assert_eq!(view.len(), u64::from(accounts));
        assert!((0..accounts).all(|n| view.get(id(n)) == other.get(id(n))));
        let sizes =
            |writer: &ViewWriter| writer.table.shards.iter().map(|shard| shard.load().slot_count()).collect::<Vec<_>>();
        assert_eq!(sizes(&writer), sizes(&grown));
        // The view applies further events.
        events.iter().for_each(|event| _ = writer.apply(event));
        assert!(writer.apply(&self::event(accounts, AccountStatus::Active, Some(1))));
        assert_eq!(view.len(), u64::from(accounts) + 1);
    }
}

#[test]
fn a_reader_beside_the_writer_always_finds_what_was_there_before() {
    let (mut writer, view) = account_view();
    for n in 0..1_000 {
        writer.apply(&event(n, AccountStatus::Active, Some(1)));
    }
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    // Until the writer has added the last account.
                    while view.get(id(99_999)).is_none() {
                        for n in 0..1_000 {
                            let state = view.get(id(n)).expect("an account that was there before");
                            assert!(state.version >= Some(1));
                        }
                    }
                })
            })
            .collect();
        for n in 1_000..100_000 {
            writer.apply(&event(n % 1_000, AccountStatus::Blocked, Some(n)));
            writer.apply(&event(n, AccountStatus::Active, Some(1)));
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}
