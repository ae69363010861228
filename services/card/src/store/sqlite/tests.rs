//! Files of older versions.

use std::collections::BTreeSet;

use database::Committer;
use rusqlite::params;

use super::reader::page;
use super::writer::closed_accounts;
use super::*;
use crate::error::CardError;
use crate::ledger::{Command, Named};
use crate::store::PageRequest;

#[test]
fn an_account_of_an_older_file_is_closed_and_others_keep_their_cards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("card.db");
    let older = SqliteFile::open(&path, &Schema { migrations: &SCHEMA.migrations[..2], ..SCHEMA }).unwrap();
    let accounts = [5, 6].map(|number| AccountId(Uuid::from_u128(number)));
    for (account_id, cards) in accounts.iter().zip([3, 4]) {
        let row = params![account_id.0.as_bytes(), cards];
        older.writer().unwrap().execute("INSERT INTO card_accounts VALUES (?, ?, 0)", row).unwrap();
    }
    for sequence in 1..=7_u8 {
        let account_id = accounts[usize::from(sequence % 2 == 0 || sequence == 7)];
        let id = Uuid::from_u128(sequence.into());
        let row = params![sequence, id.as_bytes(), account_id.0.as_bytes()];
        older.writer().unwrap().execute("INSERT INTO cards VALUES (?, ?, 'US', ?, 0, 0)", row).unwrap();
    }
    drop(older);
    let file = SqliteFile::open(&path, &SCHEMA).unwrap();
    let (connection, durability) = file.group_writer().unwrap();
    let numbering = CardNumbering(Numbering::hexadecimal([3; 16]));
    let mut writer = Writer::open(connection, durability, numbering.clone(), Clock::system()).unwrap();
    let close = Command::CloseAccounts(vec![accounts[0]]);
    assert!(writer.commit(vec![close], false).unwrap().iter().all(Result::is_ok));
    let reader = file.reader().unwrap();
    for (account_id, sequences, deleted) in
        [(accounts[0], [5, 3, 1].as_slice(), true), (accounts[1], &[7, 6, 4, 2], false)]
    {
        let request = PageRequest { limit: 100, after: None, account_id: Some(account_id) };
        let found = page(&reader, &numbering, request).unwrap().expect("a page");
        assert!(found.cards.iter().map(|card| card.id.as_u128()).eq(sequences.iter().copied()));
        assert!(found.cards.iter().all(|card| card.deleted == deleted));
        assert_eq!(found.total, sequences.len() as u64);
    }
}

#[test]
fn cards_of_an_older_file_and_new_ones_are_found_deleted_and_listed_alike() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("card.db");
    let older = SqliteFile::open(&path, &Schema { migrations: &SCHEMA.migrations[..1], ..SCHEMA }).unwrap();
    let account_id = AccountId(Uuid::from_u128(5));
    for sequence in 1..=9_u8 {
        // In another order than that of their sequences.
        let id = Uuid::from_u128(100 - u128::from(sequence));
        let row = params![sequence, id.as_bytes(), account_id.0.as_bytes()];
        let sql = "INSERT INTO cards VALUES (?, ?, 'US', ?, 0, 0)";
        older.writer().unwrap().execute(sql, row).unwrap();
    }
    let closed = AccountId(Uuid::from_u128(6));
    for (account_id, cards, is_closed) in [(account_id, 9, false), (closed, 0, true)] {
        let row = params![account_id.0.as_bytes(), cards, is_closed];
        older.writer().unwrap().execute("INSERT INTO card_accounts VALUES (?, ?, ?)", row).unwrap();
    }
    drop(older);
    let file = SqliteFile::open(&path, &SCHEMA).unwrap();
    let (connection, durability) = file.group_writer().unwrap();
    let named = Named { accounts: BTreeSet::from([account_id, closed]), ..Named::default() };
    assert_eq!(closed_accounts(&connection, &named).unwrap(), BTreeSet::from([closed]));
    let numbering = CardNumbering(Numbering::hexadecimal([3; 16]));
    let mut writer = Writer::open(connection, durability, numbering.clone(), Clock::system()).unwrap();
    let create = |_| Command::Create { country: "DE".parse().unwrap(), account_id };
    let made = writer.commit((0..9).map(create).collect(), false).unwrap();
    let made: Vec<_> = made.into_iter().map(|card| card.unwrap().unwrap().id).collect();
    let older = (1..=9).map(|sequence| Uuid::from_u128(100 - sequence));
    let all: Vec<_> = older.chain(made).collect();
    let deletions = || all.iter().step_by(2).map(|id| Command::Delete { id: *id }).collect();
    assert!(writer.commit(deletions(), false).unwrap().iter().all(|outcome| matches!(outcome, Ok(None))));
    let again = writer.commit(deletions(), false).unwrap();
    assert!(again.iter().all(|outcome| matches!(outcome, Err(CardError::AlreadyDeleted))));

    let reader = file.reader().unwrap();
    for (place, id) in all.iter().enumerate() {
        let (sequence, card) = card_by_id(&reader, &numbering, *id).unwrap().expect("it is there");
        assert_eq!((sequence, card.id, card.deleted), (place as i64 + 1, *id, place % 2 == 0));
        let request = PageRequest { limit: 100, after: Some(*id), account_id: Some(account_id) };
        let behind = page(&reader, &numbering, request).unwrap().expect("the card is there");
        assert!(behind.cards.iter().map(|card| card.id).eq(all[..place].iter().rev().copied()));
        assert_eq!(behind.total, 18);
    }
    assert!(card_by_id(&reader, &numbering, Uuid::from_u128(1 << 100)).unwrap().is_none());
}
