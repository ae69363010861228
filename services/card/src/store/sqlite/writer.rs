//! The writer: commits each batch of commands in one transaction. Another thread syncs it before the requests are answered.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use account_events::AccountId;
use clock::Clock;
use group_commit::{Committer, KeyExpiry, StoreError, Syncer};
use jiff::Timestamp;
use numbering::TimeOrderedIds;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use sqlite_file::{Durability, remove_expired_keys};
use uuid::Uuid;

use super::keys::{store_keys, stored_keys};
use super::quarantine::{acknowledge, quarantine};
use super::{card_by_id, where_card_is};
use crate::accounts::quarantine::Dropped;
use crate::card_number::CardNumbering;
use crate::decide::{self, Batch, Changes, Command, Named, Outcome};

pub(super) struct Writer {
    connection: Connection,
    durability: Durability,
    numbering: CardNumbering,
    clock: Clock,
    keys: KeyExpiry,
    ids: TimeOrderedIds,
    /// The sequence of the last card, as of the last commit.
    last_card: Arc<AtomicU64>,
    dropped: Dropped,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        durability: Durability,
        numbering: CardNumbering,
        (clock, keys): (Clock, KeyExpiry),
        (last_card, dropped): (Arc<AtomicU64>, Dropped),
    ) -> Self {
        Writer { connection, durability, numbering, clock, keys, ids: TimeOrderedIds::new(), last_card, dropped }
    }
}

impl Committer for Writer {
    type Command = Command;
    type Outcome = Outcome;

    fn commit(&mut self, commands: Vec<Command>, is_failing: bool) -> Result<Vec<Outcome>, StoreError> {
        let now = self.clock.now();
        let id_of = |sequence| self.ids.next_of(now, &self.numbering.0, sequence);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let named = Named::by(&commands);
        let closed = closed_accounts(&transaction, &named)?;
        let cards = cards_to_delete(&transaction, &self.numbering, &named)?;
        let (keys, expired) = (decide::named_keys(&commands), self.keys.expired(now.as_microsecond()));
        let keys = match keys.is_empty() {
            true => HashMap::new(),
            false => stored_keys(&transaction, &self.numbering, &keys, expired)?,
        };
        let batch = Batch { numbering: &self.numbering, id_of: &id_of, now, closed, cards, keys };
        let (outcomes, changes) = batch.decide(commands, self.last_card.load(Ordering::Relaxed) + 1..);
        // A batch without changes is not committed. After a failure it is, with a probe, to see whether the database works again.
        if changes.is_empty() && !is_failing {
            return Ok(outcomes);
        }
        write(&transaction, &self.numbering, &changes, now)?;
        let dropped = quarantine(&transaction, &changes.quarantined, now)?;
        store_keys(&transaction, &self.numbering, &changes.keys, now)?;
        let key_limit = self.keys.limit(now.as_microsecond(), changes.keys.len());
        let removed_keys = remove_expired_keys(&transaction, expired, key_limit)?;
        self.durability.commit(transaction)?;
        self.dropped.add(dropped);
        self.keys.record(now.as_microsecond(), key_limit, removed_keys);
        if let Some((sequence, ..)) = changes.created.last() {
            self.last_card.store(*sequence, Ordering::Relaxed);
        }
        Ok(outcomes)
    }

    fn sync(&self) -> Option<Syncer> {
        Some(self.durability.syncer())
    }

    /// Removes expired keys if no transaction has done so.
    fn idle(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now().as_microsecond();
        let limit = self.keys.idle_limit(now);
        if limit > 0 {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let removed = remove_expired_keys(&transaction, self.keys.expired(now), limit)?;
            if removed > 0 {
                self.durability.commit_unseen(transaction)?;
            }
            self.keys.record(now, limit, removed);
        }
        Ok(())
    }
}

pub(super) fn closed_accounts(connection: &Connection, named: &Named) -> rusqlite::Result<BTreeSet<AccountId>> {
    let mut statement = connection
        .prepare_cached("SELECT 1 FROM cards_by_account WHERE account_id = ? AND sequence = 0 AND closed = 1")?;
    let mut closed = BTreeSet::new();
    for account_id in &named.accounts {
        if statement.exists([account_id.0.as_bytes()])? {
            closed.insert(*account_id);
        }
    }
    Ok(closed)
}

fn cards_to_delete(
    connection: &Connection,
    numbering: &CardNumbering,
    named: &Named,
) -> rusqlite::Result<HashMap<Uuid, bool>> {
    let mut cards = HashMap::new();
    for id in &named.cards {
        cards.extend(card_by_id(connection, numbering, *id)?.map(|(_, card)| (*id, card.deleted)));
    }
    Ok(cards)
}

fn write(
    transaction: &Transaction<'_>,
    numbering: &CardNumbering,
    changes: &Changes,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let now = now.as_microsecond();
    for (sequence, card, caller) in &changes.created {
        transaction.prepare_cached("INSERT INTO cards VALUES (?, ?, ?, ?, 0, ?, ?)")?.execute(params![
            *sequence as i64,
            card.id.as_bytes(),
            card.country.as_str(),
            card.account_id.0.as_bytes(),
            card.creation_timestamp.as_microsecond(),
            caller.as_deref(),
        ])?;
        let mut own = transaction.prepare_cached("INSERT INTO cards_by_account VALUES (?, ?, NULL, NULL)")?;
        own.execute(params![card.account_id.0.as_bytes(), *sequence as i64])?;
    }
    for (account_id, count) in &changes.counts {
        let mut statement = transaction.prepare_cached(
            "INSERT INTO cards_by_account VALUES (?, 0, ?, 0) ON CONFLICT DO UPDATE SET cards = cards + excluded.cards",
        )?;
        statement.execute(params![account_id.0.as_bytes(), count])?;
    }
    for (id, caller) in &changes.deleted {
        let sql = "UPDATE cards SET deleted = 1 WHERE sequence = ?1 AND id = ?2";
        let (sequence, id) = where_card_is(numbering, id);
        transaction.prepare_cached(sql)?.execute(params![sequence, id])?;
        let sql = "INSERT INTO card_deletions VALUES (?, ?, 'requested', ?)";
        transaction.prepare_cached(sql)?.execute(params![sequence, now, caller.as_deref()])?;
    }
    for account_id in &changes.closed {
        let mut close = transaction
            .prepare_cached("INSERT INTO cards_by_account VALUES (?, 0, 0, 1) ON CONFLICT DO UPDATE SET closed = 1")?;
        close.execute([account_id.0.as_bytes()])?;
        let live = "deleted = 0
            AND sequence IN (SELECT sequence FROM cards_by_account WHERE account_id = ?1 AND sequence > 0)";
        let mut record = transaction.prepare_cached(&format!(
            "INSERT INTO card_deletions SELECT sequence, ?2, 'account_deleted', NULL FROM cards WHERE {live}"
        ))?;
        record.execute(params![account_id.0.as_bytes(), now])?;
        let mut delete = transaction.prepare_cached(&format!("UPDATE cards SET deleted = 1 WHERE {live}"))?;
        delete.execute([account_id.0.as_bytes()])?;
    }
    acknowledge(transaction, &changes.acknowledged)?;
    if changes.is_empty() {
        transaction.execute("UPDATE ledger SET probes = probes + 1", [])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use numbering::Numbering;
    use sqlite_file::SqliteFile;

    use super::super::SCHEMA;
    use super::*;

    #[test]
    fn nothing_is_written_where_nothing_changes_unless_it_is_to_tell_whether_it_can_be() {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteFile::open(&folder.path().join("card.db"), &SCHEMA).unwrap();
        let (connection, durability) = file.group_writer().unwrap();
        let numbering = CardNumbering(Numbering::hexadecimal([3; 16]));
        let keys = KeyExpiry::new(std::time::Duration::from_hours(1));
        let mut writer = Writer::new(connection, durability, numbering, (Clock::system(), keys), Default::default());
        let reader = file.reader().unwrap();
        // It changes when another connection has written a page.
        let version = || reader.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0)).unwrap();
        let mut before = version();
        for (is_failing, is_written) in [(false, false), (true, true), (true, true)] {
            assert_eq!(writer.commit(Vec::new(), is_failing).unwrap().len(), 0);
            assert_eq!(version() != before, is_written);
            before = version();
        }
    }
}
