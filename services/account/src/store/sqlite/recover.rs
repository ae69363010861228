//! The SQLite file as `tandem recover` uses it.

use std::path::Path;

use account_events::digest::EventState;
use account_events::{AccountId, AccountStatus};
use rusqlite::{Connection, params};
use sqlite_file::SqliteFile;
use uuid::Uuid;

use super::history::insert_entries;
use super::outbox::events_to_json;
use super::{LAST_ACCOUNT, LAST_EVENT, SCHEMA, parsed};
use crate::history::{ChangeType, HistoryEntry};
use crate::recover::join::Row;
use crate::recover::{Facts, RecoveryStore, Step};

pub(crate) struct SqliteRecovery {
    /// Closed first.
    connection: Option<Connection>,
    file: SqliteFile,
}

impl SqliteRecovery {
    /// Locks the file at `path`, which must exist: a service that uses it must be stopped.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        anyhow::ensure!(path.exists(), "there is no account database at {}", path.display());
        let file = SqliteFile::open(path, &SCHEMA)?;
        Ok(SqliteRecovery { connection: Some(file.writer()?), file })
    }

    fn connection(&self) -> anyhow::Result<&Connection> {
        self.connection.as_ref().ok_or_else(|| anyhow::anyhow!("the database is closed"))
    }
}

impl RecoveryStore for SqliteRecovery {
    fn facts(&mut self) -> anyhow::Result<Facts> {
        let sql = "SELECT database_id FROM ledger";
        // The lock on the file keeps services away.
        Ok(Facts { database_id: self.connection()?.query_row(sql, [], |row| row.get(0))?, is_in_use: false })
    }

    fn rows(&mut self, after: u64, limit: usize) -> anyhow::Result<Vec<(u64, Row)>> {
        let sql = "SELECT sequence, id, version, event_version, status FROM accounts WHERE sequence > ? ORDER BY sequence LIMIT ?";
        let mut statement = self.connection()?.prepare_cached(sql)?;
        let rows = statement.query_map(params![after as i64, limit as i64], |row| {
            let state = EventState { version: row.get(3)?, status: parsed(row, 4, AccountStatus::parse)? };
            let id = AccountId(Uuid::from_bytes(row.get(1)?));
            Ok((row.get::<_, i64>(0)? as u64, Row { id, version: row.get(2)?, state }))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn clear_outbox(&mut self, position: u64) -> anyhow::Result<()> {
        let transaction = self.connection()?.unchecked_transaction()?;
        // No position is at or before this anchor, so the database stays superseded until the end.
        let sql = format!("UPDATE ledger SET outbox_anchor = 0, removed_outbox_sequence = max(({LAST_EVENT}), ?)");
        transaction.execute(&sql, [position as i64])?;
        transaction.execute("DELETE FROM outbox", [])?;
        Ok(transaction.commit()?)
    }

    fn write(&mut self, step: &Step) -> anyhow::Result<()> {
        let transaction = self.connection()?.unchecked_transaction()?;
        for update in &step.updates {
            let sql = "UPDATE accounts SET status = ?, version = ?, event_version = ? WHERE sequence = ?";
            let row = params![update.status.as_str(), update.version, update.event_version, update.sequence as i64];
            transaction.prepare_cached(sql)?.execute(row)?;
            if update.version > update.previous_version {
                let entry = HistoryEntry {
                    version: update.version,
                    change_type: ChangeType::Recovered,
                    fields: String::new(),
                    status: update.status,
                    at: step.at,
                    caller: None,
                };
                insert_entries(&transaction, &[(update.sequence, entry)])?;
            }
            let change = |status| i64::from(update.status == status) - i64::from(update.previous_status == status);
            let totals = [change(AccountStatus::Blocked), change(AccountStatus::Deleted)];
            transaction
                .prepare_cached("UPDATE ledger SET blocked = blocked + ?, deleted = deleted + ?")?
                .execute(totals)?;
        }
        if let Some(event) = step.events.first() {
            let (count, at) = (step.events.len() as i64, event.occurred_at.as_microsecond());
            let sql = format!("INSERT INTO outbox SELECT ({LAST_EVENT}) + ?1, ?1, ?2, ?3");
            transaction.prepare_cached(&sql)?.execute(params![count, at, events_to_json(&step.events)])?;
        }
        Ok(transaction.commit()?)
    }

    fn finish(&mut self, position: u64, session: Option<&str>, account_sequence_floor: u64) -> anyhow::Result<()> {
        let transaction = self.connection()?.unchecked_transaction()?;
        let sql = "INSERT INTO publisher_sessions (session) SELECT ?1 WHERE ?1 IS NOT NULL ON CONFLICT DO NOTHING";
        transaction.execute(sql, [session])?;
        let sql = format!(
            "UPDATE ledger SET
                 unused_sequences = unused_sequences + max(0, ?1 - ({LAST_ACCOUNT})),
                 account_sequence_floor = max(account_sequence_floor, ?1),
                 removed_outbox_sequence = ?2, outbox_anchor = ?2, superseded = NULL"
        );
        transaction.execute(&sql, [account_sequence_floor as i64, position as i64])?;
        transaction.commit()?;
        self.connection = None;
        Ok(self.file.close()?)
    }
}
