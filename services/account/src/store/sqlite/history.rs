//! The history of accounts in the SQLite file.

use account_events::{AccountId, AccountStatus, Version};
use group_commit::StoreError;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::reader::Reader;
use super::{parsed, timestamp};
use crate::history::{ChangeType, HistoryEntry};
use crate::store::StoredHistory;

/// The creation, with the columns of [`entry_from_row`].
const CREATION: &str =
    "SELECT 1, created_at, 'created', 'ACTIVE', '', caller FROM accounts WHERE sequence = ? AND id = ?";

/// The changes, with the columns of [`entry_from_row`].
const CHANGES: &str = "SELECT version, changed_at, type, status, fields, caller FROM account_history
    WHERE account_sequence = ? AND version < ? ORDER BY version DESC LIMIT ?";

impl Reader {
    pub(in crate::store) async fn history(
        &self,
        id: AccountId,
        before: Version,
        limit: usize,
    ) -> Result<Option<StoredHistory>, StoreError> {
        let sequence = self.numbering.0.sequence_of_id(id.0) as i64;
        let read = move |connection: &Connection| {
            let mut creation = connection.prepare_cached(CREATION)?;
            let creation = creation.query_row(params![sequence, id.0.as_bytes()], entry_from_row).optional()?;
            let Some(creation) = creation else { return Ok(None) };
            let mut changes = connection.prepare_cached(CHANGES)?;
            let changes = changes.query_map(params![sequence, before, limit as i64], entry_from_row)?;
            Ok(Some(StoredHistory { creation, changes: changes.collect::<Result<_, _>>()? }))
        };
        self.pool.read(read).await
    }
}

fn entry_from_row(row: &Row<'_>) -> rusqlite::Result<HistoryEntry> {
    let status = parsed(row, 3, AccountStatus::parse)?;
    Ok(HistoryEntry {
        version: row.get(0)?,
        at: timestamp(row, 1)?,
        change_type: parsed(row, 2, |text| ChangeType::parse(text, status))?,
        status,
        fields: row.get(4)?,
        caller: row.get(5)?,
    })
}

/// Inserts `entries`, each with the sequence of its account.
pub(super) fn insert_entries(connection: &Connection, entries: &[(u64, HistoryEntry)]) -> rusqlite::Result<()> {
    for (sequence, entry) in entries {
        let mut insert = connection.prepare_cached("INSERT INTO account_history VALUES (?, ?, ?, ?, ?, ?, ?)")?;
        insert.execute(params![
            *sequence as i64,
            entry.version,
            entry.at.as_microsecond(),
            entry.change_type.stored(),
            entry.status.as_str(),
            entry.fields,
            entry.caller,
        ])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlite_file::SqliteFile;

    use super::super::SCHEMA;
    use super::*;

    #[test]
    fn a_page_of_a_history_needs_no_scan_and_no_sort() {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteFile::open(&folder.path().join("account.db"), &SCHEMA).unwrap();
        let connection = file.reader().unwrap();
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {CHANGES}")).unwrap();
        let plan = statement.query_map(params![9, 9, 9], |row| row.get::<_, String>(3)).unwrap();
        let plan: Vec<_> = plan.collect::<Result<_, _>>().unwrap();
        assert_eq!(plan, ["SEARCH account_history USING PRIMARY KEY (account_sequence=? AND version<?)"]);
    }
}
