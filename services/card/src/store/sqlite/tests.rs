//! Cards and accounts in one file: found, deleted, closed and listed.

use std::collections::BTreeSet;

use group_commit::Committer;

use super::reader::page;
use super::writer::closed_accounts;
use super::*;
use crate::decide::{Command, Named};
use crate::error::CardError;
use crate::idempotency::Done;
use crate::store::PageRequest;

#[test]
fn cards_are_found_deleted_and_listed_and_closed_accounts_keep_theirs_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let file = SqliteFile::open(&folder.path().join("card.db"), &SCHEMA).unwrap();
    let (connection, durability) = file.group_writer().unwrap();
    let numbering = CardNumbering(Numbering::hexadecimal([3; 16]));
    let clock = (Clock::system(), KeyExpiry::new(std::time::Duration::from_hours(1)));
    let mut writer = Writer::new(connection, durability, numbering.clone(), clock, Default::default());
    let [account_id, closed] = [5, 6].map(|number| AccountId(Uuid::from_u128(number)));
    let country = || "DE".parse().unwrap();
    let create = |place| Command::Create {
        country: country(),
        account_id: if place == 0 { closed } else { account_id },
        caller: None,
        key: None,
    };
    let made = writer.commit((0..19).map(create).collect(), false).unwrap();
    let made: Vec<_> = made.into_iter().map(|done| done.unwrap().card.unwrap().id).collect();
    let (of_closed, all) = made.split_first().unwrap();
    assert!(writer.commit(vec![Command::CloseAccounts(vec![closed])], false).unwrap().iter().all(Result::is_ok));
    let refused = writer
        .commit(vec![Command::Create { country: country(), account_id: closed, caller: None, key: None }], false)
        .unwrap();
    assert!(refused.iter().all(|outcome| matches!(outcome, Err(CardError::AccountDeleted))), "{refused:?}");
    let deletions = || all.iter().step_by(2).map(|id| Command::Delete { id: *id, caller: None, key: None }).collect();
    assert!(
        writer.commit(deletions(), false).unwrap().iter().all(|outcome| matches!(outcome, Ok(Done { card: None, .. })))
    );
    let again = writer.commit(deletions(), false).unwrap();
    assert!(again.iter().all(|outcome| matches!(outcome, Err(CardError::AlreadyDeleted))));

    let reader = file.reader().unwrap();
    let named = Named { accounts: BTreeSet::from([account_id, closed]), ..Named::default() };
    assert_eq!(closed_accounts(&reader, &named).unwrap(), BTreeSet::from([closed]));
    assert!(card_by_id(&reader, &numbering, *of_closed).unwrap().expect("it is there").1.deleted);
    for (place, id) in all.iter().enumerate() {
        let (sequence, card) = card_by_id(&reader, &numbering, *id).unwrap().expect("it is there");
        assert_eq!((sequence, card.id, card.deleted), (place as i64 + 2, *id, place % 2 == 0));
        let request = PageRequest { limit: 100, after: Some(*id), account_id: Some(account_id) };
        let behind = page(&reader, &numbering, request).unwrap().expect("the card is there");
        assert!(behind.items.iter().map(|card| card.id).eq(all[..place].iter().rev().copied()));
        assert_eq!(behind.total, 18);
    }
    assert!(card_by_id(&reader, &numbering, Uuid::from_u128(1 << 100)).unwrap().is_none());
}
