//! The writer: each batch one transaction, synced when it is answered.

use std::collections::HashMap;

use database::{Committer, StoreError};
use jiff::Timestamp;
use numbering::TimeOrderedIds;
use process::Clock;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::account_by_id;
use super::event_batch::{EventBatch, RecentEvents, to_text};
use super::outbox::{PublishedPosition, remove_published};
use crate::account_number::AccountNumbering;
use crate::ledger::{self, Batch, Changes, Command, Outcome};
use crate::outbox::OutboxSignal;

pub(super) struct Writer {
    connection: Connection,
    numbering: AccountNumbering,
    clock: Clock,
    ids: TimeOrderedIds,
    signal: OutboxSignal,
    recent: RecentEvents,
    published: PublishedPosition,
    removed: u64,
    counters: Counters,
}

/// What the next rows continue from: as of the last commit.
#[derive(Debug, Clone, Copy)]
struct Counters {
    last_account_sequence: u64,
    last_outbox_sequence: u64,
    /// By [`AccountStatus`](account_events::AccountStatus).
    totals: [i64; 3],
}

impl Writer {
    pub(super) fn open(
        connection: Connection,
        numbering: AccountNumbering,
        clock: Clock,
        signal: OutboxSignal,
        recent: RecentEvents,
        published: PublishedPosition,
    ) -> rusqlite::Result<Self> {
        let counters = connection.query_row(
            "SELECT (SELECT coalesce(max(sequence), 0) FROM accounts), last_outbox_sequence, active, blocked, deleted
             FROM ledger",
            [],
            |row| {
                Ok(Counters {
                    last_account_sequence: row.get::<_, i64>(0)? as u64,
                    last_outbox_sequence: row.get::<_, i64>(1)? as u64,
                    totals: [row.get(2)?, row.get(3)?, row.get(4)?],
                })
            },
        )?;
        let ids = TimeOrderedIds::new();
        Ok(Writer { connection, numbering, clock, ids, signal, recent, published, removed: 0, counters })
    }
}

impl Committer for Writer {
    type Command = Command;
    type Outcome = Outcome;

    fn commit(&mut self, commands: Vec<Command>, is_failing: bool) -> Result<Vec<Outcome>, StoreError> {
        let (now, published) = (self.clock.now(), self.published.get());
        if cfg!(feature = "bench-no-database") {
            let batch = Batch { numbering: &self.numbering, ids: &self.ids, now, accounts: HashMap::new() };
            let (outcomes, changes) = batch.decide(commands, self.counters.last_account_sequence + 1..);
            self.counters.last_account_sequence += changes.created.len() as u64;
            return Ok(outcomes);
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut accounts = HashMap::new();
        for id in ledger::named_accounts(&commands) {
            accounts.extend(account_by_id(&transaction, &self.numbering, id)?.map(|account| (id, account)));
        }
        let batch = Batch { numbering: &self.numbering, ids: &self.ids, now, accounts };
        let (outcomes, changes) = batch.decide(commands, self.counters.last_account_sequence + 1..);
        // Only refusals, or changes to what is so already: nothing that would be worth a sync, unless it is to tell
        // whether the database takes transactions again.
        if changes.is_empty() && !is_failing {
            return Ok(outcomes);
        }
        // Events stand behind all that was published, also where this is an older copy and the clock is behind.
        let before =
            Counters { last_outbox_sequence: self.counters.last_outbox_sequence.max(published), ..self.counters };
        let counters = write(&transaction, &changes, before, now)?;
        if published > self.removed {
            remove_published(&transaction, published)?;
        }
        transaction.commit()?;
        let behind = self.counters.last_outbox_sequence;
        (self.counters, self.removed) = (counters, published);
        if !changes.events.is_empty() {
            self.recent.add(EventBatch { behind, last: counters.last_outbox_sequence, events: changes.events });
            self.signal.notify();
        }
        Ok(outcomes)
    }

    /// Removes what was published since the last commit, if nothing else gave the occasion.
    fn idle(&mut self) -> Result<(), StoreError> {
        let published = self.published.get();
        if published > self.removed {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            remove_published(&transaction, published)?;
            transaction.commit()?;
            self.removed = published;
        }
        Ok(())
    }
}

/// Writes `changes` and returns what the next rows continue from once they are committed.
fn write(
    transaction: &Transaction<'_>,
    changes: &Changes,
    mut counters: Counters,
    now: Timestamp,
) -> rusqlite::Result<Counters> {
    for (sequence, account) in &changes.created {
        counters.last_account_sequence = *sequence;
        transaction.prepare_cached("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?.execute(params![
            *sequence as i64,
            account.id.0.as_bytes(),
            account.beholder_name.as_str(),
            account.country_code.as_str(),
            account.status.as_str(),
            account.version,
            account.created_at.as_microsecond(),
            account.updated_at.as_microsecond(),
        ])?;
    }
    for account in &changes.updated {
        let mut statement = transaction.prepare_cached(
            "UPDATE accounts SET beholder_name = ?, country_code = ?, status = ?, version = ?, updated_at = ? WHERE id = ?",
        )?;
        statement.execute(params![
            account.beholder_name.as_str(),
            account.country_code.as_str(),
            account.status.as_str(),
            account.version,
            account.updated_at.as_microsecond(),
            account.id.0.as_bytes(),
        ])?;
    }
    if !changes.events.is_empty() {
        let count = changes.events.len() as u64;
        let first = u64::try_from(now.as_microsecond()).unwrap_or(0).max(counters.last_outbox_sequence + 1);
        counters.last_outbox_sequence = first + count - 1;
        transaction.prepare_cached("INSERT INTO outbox VALUES (?, ?, ?, ?)")?.execute(params![
            counters.last_outbox_sequence as i64,
            count as i64,
            now.as_microsecond(),
            to_text(&changes.events),
        ])?;
    }
    for (total, change) in counters.totals.iter_mut().zip(changes.totals) {
        *total += change;
    }
    let [active, blocked, deleted] = counters.totals;
    transaction
        .prepare_cached("UPDATE ledger SET active = ?, blocked = ?, deleted = ?, last_outbox_sequence = ?")?
        .execute(params![active, blocked, deleted, counters.last_outbox_sequence as i64])?;
    Ok(counters)
}
