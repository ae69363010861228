//! What the files of a data folder hold, compared with what was acknowledged and with each other.

use std::collections::BTreeMap;
use std::path::Path;

use account_events::{AccountId, AccountStatus, Version};
use event_log::{EmbeddedLog, EmbeddedSettings};
use rusqlite::Connection;
use uuid::Uuid;

use super::acknowledged::{Account, Unanswered, Writer};
use crate::events::{Seen, last_versions, read_all, view_of};

/// The three files of a process that is not running.
pub(super) struct Files {
    accounts: BTreeMap<AccountId, (AccountStatus, Version)>,
    cards: BTreeMap<Uuid, (AccountId, bool)>,
    events: Vec<Seen>,
}

/// How many events wait in the outbox. The process may be running.
pub(super) fn outbox_events(data: &Path) -> i64 {
    number(&open(data, "account.db"), "SELECT count(*) FROM outbox")
}

/// How many cards of deleted accounts are not deleted. The process may be running.
pub(super) fn live_cards_of_deleted(data: &Path) -> i64 {
    let connection = open(data, "card.db");
    let path = data.join("account.db");
    connection.execute("ATTACH ? AS account_database", [path.to_str()]).expect("the account database");
    let sql = "SELECT count(*) FROM cards JOIN account_database.accounts ON cards.account_id = accounts.id
               WHERE cards.deleted = 0 AND accounts.status = 'DELETED'";
    number(&connection, sql)
}

impl Files {
    pub(super) fn read(data: &Path) -> Self {
        let accounts = rows(&open(data, "account.db"), "SELECT id, status, version FROM accounts", |row| {
            let status: String = row.get(1)?;
            let status = AccountStatus::parse(&status).expect("one of the three");
            Ok((AccountId(Uuid::from_bytes(row.get(0)?)), (status, row.get(2)?)))
        });
        let cards = rows(&open(data, "card.db"), "SELECT id, account_id, deleted FROM cards", |row| {
            Ok((Uuid::from_bytes(row.get(0)?), (AccountId(Uuid::from_bytes(row.get(1)?)), row.get(2)?)))
        });
        assert_eq!((outbox_events(data), live_cards_of_deleted(data)), (0, 0), "after the end too");
        let log = EmbeddedLog::open(EmbeddedSettings::at(data.join("event-log.db"))).expect("an intact log");
        Files { accounts, cards, events: read_all(&log) }
    }

    /// Panics at the first thing that is not as it must be. What was not answered is taken as it turned out.
    pub(super) fn check(&self, writers: &mut [Writer], round: usize) {
        let told = last_versions(&self.events);
        let mut strangers = self.accounts.clone();
        for writer in &mut *writers {
            self.check_accounts(writer, &told);
            self.check_cards(writer);
            strangers.retain(|id, _| !writer.accounts.contains_key(id));
        }
        let unanswered = |writer: &&Writer| matches!(writer.unanswered, Some(Unanswered::CreateAccount));
        let creations = writers.iter().filter(unanswered).count();
        assert!(strangers.len() <= creations, "round {round}: {strangers:?} were never acknowledged");
        for (id, (status, version)) in strangers {
            assert_eq!((status, version), (AccountStatus::Active, 1), "round {round}: {id} was never changed");
            // Created without an answer, it belongs to nobody, and to the first writer from now on.
            writers[0].accounts.insert(id, Account { status, version, told: 1 });
        }
        self.check_view();
        writers.iter_mut().for_each(Writer::settle);
    }

    fn check_accounts(&self, writer: &mut Writer, told: &BTreeMap<AccountId, Version>) {
        for (id, account) in &mut writer.accounts {
            let found = *self.accounts.get(id).unwrap_or_else(|| panic!("account {id} was acknowledged and is lost"));
            if let Some(Unanswered::ChangeAccount(changed, after)) = writer.unanswered
                && changed == *id
                && found == (after.status, after.version)
            {
                *account = after;
            }
            assert_eq!(found, (account.status, account.version), "account {id}");
            assert_eq!(told.get(id), Some(&account.told), "the last event of account {id}");
        }
    }

    fn check_cards(&self, writer: &mut Writer) {
        for (id, card) in &mut writer.cards {
            let (account, deleted) =
                *self.cards.get(id).unwrap_or_else(|| panic!("card {id} was acknowledged and is lost"));
            assert_eq!(account, card.account, "card {id}");
            let unanswered = matches!(writer.unanswered, Some(Unanswered::DeleteCard(asked)) if asked == *id);
            let closed = self.accounts[&account].0 == AccountStatus::Deleted;
            assert!(deleted == (card.deleted || closed) || (deleted && unanswered), "card {id}: {deleted}, {card:?}");
            card.deleted = deleted;
        }
    }

    /// The view is the account table.
    fn check_view(&self) {
        let view = view_of(&self.events);
        assert_eq!(view.len(), self.accounts.len() as u64, "the view and the table have the same accounts");
        for (id, (status, version)) in &self.accounts {
            let state = view.get(*id).unwrap_or_else(|| panic!("account {id} is not in the view"));
            assert_eq!(state.status, *status, "account {id}");
            assert!(state.version.is_some_and(|told| told <= *version), "account {id}: {state:?}, version {version}");
        }
    }
}

fn open(data: &Path, name: &str) -> Connection {
    let connection = Connection::open(data.join(name)).expect("a database");
    connection.busy_timeout(test_harness::DEADLINE).expect("a timeout");
    connection
}

fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).expect("a number")
}

fn rows<K: Ord, V>(
    connection: &Connection,
    sql: &str,
    row: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<(K, V)>,
) -> BTreeMap<K, V> {
    let mut statement = connection.prepare(sql).expect("a statement");
    let rows = statement.query_map([], row).expect("rows");
    rows.collect::<rusqlite::Result<_>>().expect("rows")
}
