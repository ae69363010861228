//! One test for each hole in the seed's design. Each would fail there, for the reason at its head. Each runs on the
//! embedded event log and on Kafka.

mod held_feed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use account_events::{AccountId, AccountStatus, EventType};
use event_log::partition_of_key;
use serde_json::json;
use test_harness::{Http, wait_until};
use uuid::Uuid;

use self::held_feed::HeldFeed;
use crate::events::{Seen, last_versions, record, seed_record, view_of};
use crate::kafka::PARTITIONS;
use crate::place::Place;
use crate::requests::{create_account, create_card, delete_account, error, set_status};

const ACCOUNTS: usize = 30;
const DELETED: (u16, &str) = (403, "cannot create card for deleted account");
const BLOCKED: (u16, &str) = (403, "cannot create card for inactive account");

macro_rules! holes {
    ($($hole:ident,)*) => {
        mod embedded {
            $(#[test] fn $hole() { super::$hole(&super::Place::embedded()); })*
        }
        mod kafka {
            $(#[test] fn $hole() { super::$hole(&super::Place::kafka()); })*
        }
    };
}

holes! {
    hole_1_dual_write,
    hole_2_no_key,
    hole_3_cache_and_committed_offsets,
    hole_4_one_group_for_the_cache,
    hole_5_late_or_repeated_event,
    hole_6_staleness_window,
}

fn create_accounts(accounts: &Http) -> Vec<AccountId> {
    (0..ACCOUNTS).map(|_| create_account(accounts)).collect()
}

fn assert_refused(cards: &Http, id: AccountId, (status, text): (u16, &str)) {
    let answer = create_card(cards, id);
    assert_eq!((answer.status, error(&answer)), (status, text), "{id}");
}

fn wait_for_card(cards: &Http, id: AccountId) -> String {
    let answer = wait_until("the account gets a card", || {
        let answer = create_card(cards, id);
        (answer.status == 201).then_some(answer)
    });
    answer.text("id").to_owned()
}

/// The seed publishes once after the commit and ignores the error: with Kafka away, or a kill between the two, the event
/// is lost for ever.
fn hole_1_dual_write(place: &Place) {
    let start = |settings: &[(&'static str, &str)]| {
        let mut service = place.start_with(account_service::NAME, settings);
        let accounts = service.ready_service(account_service::NAME);
        (service, accounts)
    };
    // The log is away.
    let (mut service, accounts) = start(&[("KAFKA_BROKERS", "127.0.0.1:1")]);
    let mut ids = create_accounts(&accounts);
    delete_account(&accounts, ids[0]);
    service.kill();

    // It is there, and the kill comes right behind an answer.
    for _ in 0..3 {
        let (mut service, accounts) = start(&[]);
        ids.extend(create_accounts(&accounts));
        service.kill();
    }
    let (mut service, _) = start(&[]);
    wait_until("the outbox is empty", || (place.databases().outbox_events() == 0).then_some(()));
    assert!(service.terminate().success(), "{:#?}", service.lines());
    let events = place.events();
    let (view, last) = (view_of(&events), last_versions(&events));
    assert_eq!((view.len(), last.len()), (ids.len() as u64, ids.len()));
    for (number, id) in ids.iter().enumerate() {
        let (status, version) = if number == 0 { (AccountStatus::Deleted, 2) } else { (AccountStatus::Active, 1) };
        assert_eq!((view.get(*id).map(|state| state.status), last[id]), (Some(status), version), "{id}");
        let told = events.iter().filter(|seen| seen.event.account_id == *id).map(|seen| seen.event.version);
        assert_eq!(told.collect::<BTreeSet<_>>(), (1..=version).map(Some).collect(), "{id}");
    }
}

/// The seed's records have no key and go to whichever partition has had the fewest bytes: two events of one account are
/// read in any order, and compaction has nothing to go by.
fn hole_2_no_key(place: &Place) {
    const CHANGES: usize = 9;
    let service = place.account_service();
    let ids = create_accounts(service.http());
    std::thread::scope(|scope| {
        for ids in ids.chunks(10) {
            let accounts = service.http();
            scope.spawn(move || {
                for change in 0..CHANGES {
                    let status = if change % 2 == 0 { "BLOCKED" } else { "ACTIVE" };
                    ids.iter().for_each(|id| set_status(accounts, *id, status));
                }
            });
        }
    });
    ids[..5].iter().for_each(|id| delete_account(service.http(), *id));

    let total = ACCOUNTS * (1 + CHANGES) + 5;
    let events = wait_until("all is published", || Some(place.events()).filter(|events| events.len() == total));
    let last = last_versions(&events);
    let mut partitions_used = BTreeSet::new();
    for id in &ids {
        let key = id.to_string().into_bytes();
        let own: Vec<_> = events.iter().filter(|seen| seen.event.account_id == *id).collect();
        let partition = partition_of_key(&key, PARTITIONS);
        assert!(own.iter().all(|seen| seen.key.as_ref() == Some(&key) && seen.partition == partition), "{own:?}");
        let versions: Vec<_> = own.iter().filter_map(|seen| seen.event.version).collect();
        assert_eq!(versions, (1..=last[id]).collect::<Vec<_>>(), "{id}");
        partitions_used.insert(partition);
    }
    assert_eq!(partitions_used.len(), PARTITIONS as usize, "{ACCOUNTS} accounts are in all partitions");

    // What compaction leaves, the last record of each key, gives the same view, and that is what the accounts are.
    let compacted: BTreeMap<_, &Seen> = events.iter().map(|seen| (seen.key.clone(), seen)).collect();
    let (whole, compacted) = (view_of(&events), view_of(compacted.into_values()));
    for id in ids {
        let account = service.http().get(&format!("/account?id={id}")).expect(200);
        let state = whole.get(id).expect("it is in the view");
        assert_eq!(
            (json!(state.status.as_str()), json!(state.version)),
            (account["status"].clone(), account["version"].clone())
        );
        assert_eq!(compacted.get(id), Some(state));
    }
}

/// The seed's consumer resumes behind its group's last commit with an empty cache: every account from before is "not
/// found" after a restart.
fn hole_3_cache_and_committed_offsets(place: &Place) {
    let services = place.start_services();
    let ids = create_accounts(&services.accounts);
    place.wait_until_group_has_committed(ACCOUNTS as u64);
    services.kill();

    let mut cards = place.start(card_service::NAME);
    let cards = cards.service(card_service::NAME);
    for id in ids {
        wait_until("the account gets a card", || {
            let answer = create_card(&cards, id);
            let catching_up = (answer.status, error(&answer)) == (503, "account view is catching up");
            assert!(answer.status == 201 || catching_up, "{id}: {} {}", answer.status, answer.body);
            (!catching_up).then_some(())
        });
    }
}

/// The seed's instances share one group for the cache: each sees some partitions, so each lacks most accounts.
fn hole_4_one_group_for_the_cache(place: &Place) {
    let service = place.account_service();
    let instances = ["one", "two"].map(|name| place.card_service(name, place.log()));
    let before = create_accounts(service.http());
    // That is, it has shared out the work once.
    place.wait_until_group_has_committed(ACCOUNTS as u64);
    // By now both are members, with partitions of their own.
    let after = create_accounts(service.http());
    for id in before.into_iter().chain(after) {
        instances.iter().for_each(|instance| drop(wait_for_card(instance.http(), id)));
    }
}

/// In the seed's cache the last event to arrive wins, so one that is late or repeated brings a deleted account back.
fn hole_5_late_or_repeated_event(place: &Place) {
    use AccountStatus::{Active, Blocked, Deleted};
    place.take_keyless_records();
    let cards = place.card_service("cards", place.log());
    // An id in the given partition, so that one event behind the others tells that they have been read.
    let id_in = |partition| {
        let ids = std::iter::repeat_with(|| AccountId(Uuid::new_v4()));
        let there = |id: &AccountId| partition_of_key(id.to_string().as_bytes(), PARTITIONS) == partition;
        ids.take(10_000).find(there).expect("one in so many")
    };
    let (deleted, blocked, marker) = (id_in(0), id_in(0), id_in(0));
    place.publish(&[
        record(deleted, 1, Active),
        record(deleted, 2, Deleted),
        record(deleted, 1, Active),
        record(deleted, 2, Active),
        record(blocked, 3, Blocked),
        record(blocked, 2, Active),
        record(blocked, 1, Active),
        record(marker, 1, Active),
    ]);
    wait_for_card(cards.http(), marker);
    assert_refused(cards.http(), deleted, DELETED);
    assert_refused(cards.http(), blocked, BLOCKED);

    // Records without versions, as the seed's producer writes them, do not bring it back either. They may land in any
    // partition, so each one has a marker of its own behind it, in the same publish.
    let markers: Vec<_> = (0..PARTITIONS).map(id_in).collect();
    let mut late: Vec<_> = (0..20).map(|_| seed_record(deleted, EventType::StatusChanged, Active)).collect();
    late.extend(markers.iter().map(|marker| record(*marker, 1, Active)));
    place.publish(&late);
    markers.iter().for_each(|marker| drop(wait_for_card(cards.http(), *marker)));
    assert_refused(cards.http(), deleted, DELETED);
}

/// In the seed a card can be made between the deletion and the event's arrival, and it and all others stay live.
fn hole_6_staleness_window(place: &Place) {
    let accounts = place.account_service();
    let feed = Arc::new(HeldFeed::new(place.log()));
    let cards = place.card_service("cards", Arc::clone(&feed) as _);
    let (id, other) = (create_account(accounts.http()), create_account(accounts.http()));
    let card = wait_for_card(cards.http(), id);
    let kept = wait_for_card(cards.http(), other);
    // That is, the card closer is at work.
    place.wait_until_group_has_committed(2);
    let card_at = |card: &str| cards.http().get(&format!("/card?id={card}")).expect(200);
    let records = || cards.http().get("/readyz").expect(200)["view"]["records"].clone();

    feed.hold();
    let records_before = records();
    delete_account(accounts.http(), id);
    // The window: nobody has handled the event yet, or the closer has. Every card made in it is refused or closed.
    let mut made = vec![card];
    wait_until("the database refuses a card that the view would allow", || {
        let answer = create_card(cards.http(), id);
        match answer.status {
            201 => made.push(answer.text("id").to_owned()),
            status => assert_eq!((status, error(&answer)), DELETED),
        }
        (answer.status != 201).then_some(())
    });
    assert_eq!(records(), records_before, "the view has not heard of the deletion");
    for card in &made {
        assert_eq!(card_at(card)["deleted"], json!(true), "{card}");
    }
    assert_eq!(card_at(&kept)["deleted"], json!(false));
    create_card(cards.http(), other).expect(201);

    feed.release();
    wait_until("the view has heard of it", || (records() != records_before).then_some(()));
    assert_refused(cards.http(), id, DELETED);
}
