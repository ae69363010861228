//! The history of accounts in PostgreSQL.

use account_events::{AccountId, AccountStatus, Version};
use group_commit::StoreError;
use postgres::Parameter;
use tokio_postgres::Row;

use super::{Reader, parsed, timestamp, version};
use crate::history::{ChangeType, HistoryEntry};
use crate::store::StoredHistory;

/// The creation, with the columns of [`entry_from_row`].
const CREATION: &str =
    "SELECT 1::bigint, created_at, 'created', 'ACTIVE', '', caller FROM account.accounts WHERE id = $1";

/// The changes, with the columns of [`entry_from_row`]. The bounds are ranges because the planner sorts the whole history of an account
/// if it expects few rows from `account_sequence = …`.
const CHANGES: &str = "WITH account AS MATERIALIZED (SELECT sequence FROM account.accounts WHERE id = $1)
    SELECT version, changed_at, type, status, fields, caller FROM account.account_history
    WHERE account_sequence >= (SELECT sequence FROM account)
        AND (account_sequence, version) < ((SELECT sequence FROM account), $2)
    ORDER BY account_sequence DESC, version DESC LIMIT $3";

/// Inserts entries by column ([`EntryColumns`]).
pub(super) const INSERT_ENTRIES: &str = "INSERT INTO account.account_history SELECT * FROM unnest(
    $1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[])";

impl Reader {
    pub(in crate::store) async fn history(
        &self,
        id: AccountId,
        before: Version,
        limit: usize,
    ) -> Result<Option<StoredHistory>, StoreError> {
        let (creation, changes) = self
            .database
            .read(async |client| {
                let creation = client.prepare_cached(CREATION).await?;
                let changes = client.prepare_cached(CHANGES).await?;
                let (before, limit) = (i64::from(before), limit as i64);
                let account: [Parameter<'_>; 1] = [&id.0];
                let page: [Parameter<'_>; 3] = [&id.0, &before, &limit];
                tokio::try_join!(client.query_opt(&creation, &account), client.query(&changes, &page))
            })
            .await?;
        let Some(creation) = creation else { return Ok(None) };
        let changes = changes.iter().map(entry_from_row).collect::<Result<_, _>>()?;
        Ok(Some(StoredHistory { creation: entry_from_row(&creation)?, changes }))
    }
}

fn entry_from_row(row: &Row) -> Result<HistoryEntry, StoreError> {
    let status = parsed(row.get(3), AccountStatus::parse)?;
    Ok(HistoryEntry {
        version: version(row.get(0))?,
        at: timestamp(row.get(1))?,
        change_type: parsed(row.get(2), |text| ChangeType::parse(text, status))?,
        status,
        fields: row.get(4),
        caller: row.get(5),
    })
}

/// Entries by column, for UNNEST.
pub(super) struct EntryColumns<'a> {
    pub(super) sequences: Vec<i64>,
    pub(super) versions: Vec<i64>,
    pub(super) times: Vec<i64>,
    pub(super) types: Vec<&'static str>,
    pub(super) statuses: Vec<&'static str>,
    pub(super) fields: Vec<&'a str>,
    pub(super) callers: Vec<Option<&'a str>>,
}

impl<'a> EntryColumns<'a> {
    pub(super) fn of(entries: &'a [(u64, HistoryEntry)]) -> Self {
        let of_each = || entries.iter().map(|(_, entry)| entry);
        EntryColumns {
            sequences: entries.iter().map(|(sequence, _)| *sequence as i64).collect(),
            versions: of_each().map(|entry| i64::from(entry.version)).collect(),
            times: of_each().map(|entry| entry.at.as_microsecond()).collect(),
            types: of_each().map(|entry| entry.change_type.stored()).collect(),
            statuses: of_each().map(|entry| entry.status.as_str()).collect(),
            fields: of_each().map(|entry| entry.fields.as_str()).collect(),
            callers: of_each().map(|entry| entry.caller.as_deref()).collect(),
        }
    }
}
