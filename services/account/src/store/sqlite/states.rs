//! The states of accounts and the position of the outbox, read on the connections of the pool.

use account_events::digest::StateLine;
use account_events::{AccountId, AccountStatus};
use group_commit::StoreError;
use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use super::parsed;
use super::reader::Reader;
use crate::store::states::{OutboxPosition, StatePage};

/// What precedes the oldest event of the outbox has been published.
const POSITION: &str = "
    WITH oldest AS (SELECT last_sequence - event_count AS before FROM outbox ORDER BY last_sequence LIMIT 1),
        latest AS (SELECT max(removed_outbox_sequence, (SELECT coalesce(max(last_sequence), 0) FROM outbox)) AS last FROM ledger)
    SELECT database_id, last, coalesce((SELECT before FROM oldest), last) FROM ledger, latest";

impl Reader {
    pub(in crate::store) async fn states_after(&self, sequence: u64, limit: usize) -> Result<StatePage, StoreError> {
        let sql =
            "SELECT id, event_version, status, sequence FROM accounts WHERE sequence > ? ORDER BY sequence LIMIT ?";
        let read = move |connection: &rusqlite::Connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(params![sequence as i64, limit as i64])?;
            let (mut page, mut last) = (Vec::with_capacity(limit), None);
            while let Some(row) = rows.next()? {
                page.push(line(row)?);
                last = Some(row.get::<_, i64>(3)? as u64);
            }
            Ok((page, last))
        };
        self.pool.read(read).await
    }

    pub(in crate::store) async fn states_of(&self, ids: Vec<AccountId>) -> Result<Vec<StateLine>, StoreError> {
        let numbering = self.numbering.clone();
        let read = move |connection: &rusqlite::Connection| {
            let sql = "SELECT id, event_version, status FROM accounts WHERE sequence = ? AND id = ?";
            let mut statement = connection.prepare_cached(sql)?;
            let mut find = |id: AccountId| {
                let sequence = numbering.0.sequence_of_id(id.0) as i64;
                statement.query_row(params![sequence, id.0.as_bytes()], line).optional()
            };
            ids.into_iter().filter_map(|id| find(id).transpose()).collect()
        };
        self.pool.read(read).await
    }

    pub(in crate::store) async fn outbox_position(&self) -> Result<OutboxPosition, StoreError> {
        let acknowledged = self.published.get();
        let read = move |connection: &rusqlite::Connection| {
            connection.prepare_cached(POSITION)?.query_row([], |row| {
                let sequence = |column| row.get::<_, i64>(column).map(|sequence| sequence as u64);
                // Published events stay in the outbox for a while.
                let published = sequence(2)?.max(acknowledged);
                Ok(OutboxPosition { database_id: row.get(0)?, position: sequence(1)?, published })
            })
        };
        self.pool.read(read).await
    }
}

fn line(row: &Row<'_>) -> rusqlite::Result<StateLine> {
    Ok(StateLine(AccountId(Uuid::from_bytes(row.get(0)?)), row.get(1)?, parsed(row, 2, AccountStatus::parse)?))
}
