//! The states of accounts and the position of the outbox, read on the connections of the pool.

use account_events::digest::StateLine;
use account_events::{AccountId, AccountStatus};
use group_commit::StoreError;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Reader, parsed, version};
use crate::store::states::{OutboxPosition, StatePage};

/// What precedes the oldest event of the outbox has been published.
const POSITION: &str = "
    SELECT database_id, last_outbox_sequence,
        coalesce((SELECT sequence - 1 FROM account.outbox ORDER BY sequence LIMIT 1), last_outbox_sequence)
    FROM account.ledger";

impl Reader {
    pub(in crate::store) async fn states_after(&self, sequence: u64, limit: usize) -> Result<StatePage, StoreError> {
        let rows = self.database.read(async |client| {
            let sql = "SELECT id, event_version, status, sequence FROM account.accounts WHERE sequence > $1
                       ORDER BY sequence LIMIT $2";
            let statement = client.prepare_cached(sql).await?;
            client.query(&statement, &[&(sequence as i64), &(limit as i64)]).await
        });
        let rows = rows.await?;
        let last = rows.last().map(|row| row.get::<_, i64>(3) as u64);
        Ok((lines(&rows)?, last))
    }

    pub(in crate::store) async fn states_of(&self, ids: &[AccountId]) -> Result<Vec<StateLine>, StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let rows = self.database.read(async |client| {
            let sql = "SELECT id, event_version, status FROM account.accounts WHERE id = ANY($1)";
            let statement = client.prepare_cached(sql).await?;
            client.query(&statement, &[&ids]).await
        });
        lines(&rows.await?)
    }

    pub(in crate::store) async fn outbox_position(&self) -> Result<OutboxPosition, StoreError> {
        let row = self.database.read(async |client| {
            let statement = client.prepare_cached(POSITION).await?;
            client.query_one(&statement, &[]).await
        });
        let row = row.await?;
        let sequence = |column| row.get::<_, i64>(column) as u64;
        Ok(OutboxPosition { database_id: row.get(0), position: sequence(1), published: sequence(2) })
    }
}

fn lines(rows: &[Row]) -> Result<Vec<StateLine>, StoreError> {
    let line = |row: &Row| {
        Ok(StateLine(AccountId(row.get(0)), version(row.get(1))?, parsed(row.get(2), AccountStatus::parse)?))
    };
    rows.iter().map(line).collect()
}
