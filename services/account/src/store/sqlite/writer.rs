//! The writer: commits each batch of commands in one transaction. Another thread syncs it before the requests are answered.

use std::collections::HashMap;

use clock::Clock;
use group_commit::{Committer, KeyExpiry, StoreError, Syncer};
use jiff::Timestamp;
use numbering::TimeOrderedIds;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use sqlite_file::{Durability, remove_expired_keys};

use super::history::insert_entries;
use super::keys::{store_keys, stored_keys};
use super::outbox::{PublishedPosition, events_to_json, remove_published};
use super::{LAST_ACCOUNT, LAST_EVENT, account_by_id};
use crate::account_number::AccountNumbering;
use crate::decide::{self, Batch, Changes, Command, Outcome};
use crate::outbox::OutboxSignal;
use crate::outbox::recent_events::{EventBatch, RecentEvents};

/// Published events are removed once in so many transactions, or when the writer is idle. A removal in each transaction would
/// write two more pages.
const REMOVAL_INTERVAL: u32 = 32;

pub(super) struct Writer {
    connection: Connection,
    durability: Durability,
    numbering: AccountNumbering,
    clock: Clock,
    keys: KeyExpiry,
    ids: TimeOrderedIds,
    signal: OutboxSignal,
    recent: RecentEvents,
    published: PublishedPosition,
    /// The position up to which published events were removed.
    removed: u64,
    /// Transactions since the last removal.
    since_removal: u32,
    counters: Counters,
}

/// The last sequences, as of the last commit.
#[derive(Debug, Clone, Copy)]
struct Counters {
    last_account_sequence: u64,
    last_outbox_sequence: u64,
}

impl Writer {
    pub(super) fn open(
        (connection, durability): (Connection, Durability),
        numbering: AccountNumbering,
        (clock, keys): (Clock, KeyExpiry),
        signal: OutboxSignal,
        recent: RecentEvents,
        published: PublishedPosition,
    ) -> rusqlite::Result<Self> {
        let counter = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        let counters = Counters {
            last_account_sequence: counter(LAST_ACCOUNT)? as u64,
            last_outbox_sequence: counter(LAST_EVENT)? as u64,
        };
        Ok(Writer {
            connection,
            durability,
            numbering,
            clock,
            keys,
            ids: TimeOrderedIds::new(),
            signal,
            recent,
            published,
            removed: 0,
            since_removal: 0,
            counters,
        })
    }
}

impl Committer for Writer {
    type Command = Command;
    type Outcome = Outcome;

    fn commit(&mut self, commands: Vec<Command>, is_failing: bool) -> Result<Vec<Outcome>, StoreError> {
        let (now, published) = (self.clock.now(), self.published.get());
        let id_of = |sequence| self.ids.next_of(now, &self.numbering.0, sequence);
        let (accounts, keys) = (HashMap::new(), HashMap::new());
        let mut batch = Batch { numbering: &self.numbering, id_of: &id_of, now, accounts, keys };
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for id in decide::named_accounts(&commands) {
            if let Some((sequence, account)) = account_by_id(&transaction, &self.numbering, id)? {
                batch.accounts.insert(id, (sequence as u64, account));
            }
        }
        let (keys, expired) = (decide::named_keys(&commands), self.keys.expired(now.as_microsecond()));
        if !keys.is_empty() {
            batch.keys = stored_keys(&transaction, &self.numbering, &keys, expired)?;
        }
        let erases = commands.iter().any(|command| matches!(command, Command::Erase { .. }));
        if erases {
            // SQLite overwrites the old name in the pages that the transaction writes.
            transaction.pragma_update(None, "secure_delete", true)?;
        }
        let (outcomes, changes) = batch.decide(commands, self.counters.last_account_sequence + 1..);
        // A batch without changes needs no sync, unless it has to show whether the database accepts transactions again.
        if changes.is_empty() && !is_failing {
            return Ok(outcomes);
        }
        let counters = write(&transaction, &changes, self.counters, now)?;
        store_keys(&transaction, &self.numbering, &changes.keys, now)?;
        let key_limit = self.keys.limit(now.as_microsecond(), changes.keys.len());
        let removed_keys = remove_expired_keys(&transaction, expired, key_limit)?;
        self.since_removal += 1;
        let removes = published > self.removed && self.since_removal >= REMOVAL_INTERVAL;
        if removes {
            remove_published(&transaction, published)?;
        }
        self.durability.commit(transaction)?;
        if erases {
            // The commands are committed, so an error must not fail them. It leaves deletions slower.
            let _ = self.connection.pragma_update(None, "secure_delete", false);
        }
        self.keys.record(now.as_microsecond(), key_limit, removed_keys);
        let previous_sequence = self.counters.last_outbox_sequence;
        self.counters = counters;
        if removes {
            (self.removed, self.since_removal) = (published, 0);
        }
        if !changes.events.is_empty() {
            self.recent.add(EventBatch {
                previous_sequence,
                last_sequence: counters.last_outbox_sequence,
                events: changes.events,
            });
            self.signal.notify();
        }
        Ok(outcomes)
    }

    fn sync(&self) -> Option<Syncer> {
        Some(self.durability.syncer())
    }

    /// Removes published events and expired keys if no transaction has done so.
    fn idle(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now().as_microsecond();
        let key_limit = self.keys.idle_limit(now);
        if key_limit > 0 {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let removed = remove_expired_keys(&transaction, self.keys.expired(now), key_limit)?;
            if removed > 0 {
                self.durability.commit_unseen(transaction)?;
            }
            self.keys.record(now, key_limit, removed);
        }
        let published = self.published.get();
        if published > self.removed {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            remove_published(&transaction, published)?;
            self.durability.commit_unseen(transaction)?;
            (self.removed, self.since_removal) = (published, 0);
        }
        Ok(())
    }
}

/// Writes `changes`. Returns the last sequences after the transaction.
fn write(
    transaction: &Transaction<'_>,
    changes: &Changes,
    mut counters: Counters,
    now: Timestamp,
) -> rusqlite::Result<Counters> {
    // A new account is active and has version 1.
    let mut insert =
        transaction.prepare_cached("INSERT INTO accounts VALUES (?1, ?2, ?3, ?4, 'ACTIVE', 1, 1, ?5, ?5, ?6)")?;
    for (sequence, account, caller) in &changes.created {
        counters.last_account_sequence = *sequence;
        insert.execute(params![
            *sequence as i64,
            account.id.0.as_bytes(),
            account.beholder_name.as_str(),
            account.country_code.as_str(),
            account.created_at.as_microsecond(),
            caller.as_deref(),
        ])?;
    }
    for (sequence, account) in &changes.updated {
        let mut update = transaction.prepare_cached(
            "UPDATE accounts SET beholder_name = ?, country_code = ?, status = ?, version = ?, event_version = ?, updated_at = ?
             WHERE sequence = ?",
        )?;
        update.execute(params![
            account.beholder_name.as_str(),
            account.country_code.as_str(),
            account.status.as_str(),
            account.version,
            account.event_version,
            account.updated_at.as_microsecond(),
            *sequence as i64,
        ])?;
    }
    insert_entries(transaction, &changes.history)?;
    if !changes.events.is_empty() {
        let count = changes.events.len() as u64;
        counters.last_outbox_sequence += count;
        transaction.prepare_cached("INSERT INTO outbox VALUES (?, ?, ?, ?)")?.execute(params![
            counters.last_outbox_sequence as i64,
            count as i64,
            now.as_microsecond(),
            events_to_json(&changes.events),
        ])?;
    }
    let [_, blocked, deleted] = changes.totals;
    if (blocked, deleted) != (0, 0) {
        transaction
            .prepare_cached("UPDATE ledger SET blocked = blocked + ?, deleted = deleted + ?")?
            .execute([blocked, deleted])?;
    }
    if changes.is_empty() {
        transaction.execute("UPDATE ledger SET probes = probes + 1", [])?;
    }
    Ok(counters)
}

#[cfg(test)]
mod tests {
    use numbering::Numbering;
    use sqlite_file::SqliteFile;

    use super::super::SCHEMA;
    use super::*;

    impl Writer {
        /// One of the accounts in `file`, with a relay that does nothing.
        pub(in super::super) fn of(file: &SqliteFile, numbering: &AccountNumbering, clock: Clock) -> Writer {
            let (signal, _wait) = OutboxSignal::channel();
            let (recent, published) = (RecentEvents::default(), PublishedPosition::default());
            let clock = (clock, KeyExpiry::new(std::time::Duration::from_hours(1)));
            Writer::open(file.group_writer().unwrap(), numbering.clone(), clock, signal, recent, published).unwrap()
        }
    }

    const KEY: [u8; 16] = [3; 16];

    #[test]
    fn nothing_is_written_where_nothing_changes_unless_it_is_to_tell_whether_it_can_be() {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteFile::open(&folder.path().join("account.db"), &SCHEMA).unwrap();
        let mut writer = Writer::of(&file, &AccountNumbering(Numbering::decimal(KEY)), Clock::system());
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
