//! The quarantine: records of the event log that could not be decoded.

use std::collections::HashSet;

use group_commit::StoreError;
use http_server::Page;
use jiff::Timestamp;
use postgres::Parameter;
use tokio_postgres::Row;

use super::Reader;
use crate::accounts::quarantine::{MAX_RECORDS, Place, StoredRecord};

/// Stores records, by column, up to [`MAX_RECORDS`] in all, and returns how many found no room. A different record at a stored offset
/// replaces the stored one. Instances that write at once may exceed the bound by a command each.
pub(super) fn insert() -> String {
    format!(
        "WITH new AS (
             SELECT *, NOT EXISTS (
                 SELECT FROM card.quarantine AS stored
                 WHERE stored.partition = record.partition AND stored.record_offset = record.record_offset
             ) AS is_new
             FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bytea[], $6::bytea[], $7::text[],
                 $8::bigint[]) AS record (partition, record_offset, reason, detail, key, value, headers, seen_at)
         ), placed AS (
             SELECT *, NOT is_new OR count(*) FILTER (WHERE is_new) OVER (ORDER BY partition, record_offset)
                 <= {MAX_RECORDS} - (SELECT count(*) FROM card.quarantine) AS has_room
             FROM new
         ), stored AS (
             INSERT INTO card.quarantine
             SELECT partition, record_offset, reason, detail, key, value, headers, seen_at FROM placed
             WHERE has_room ORDER BY partition, record_offset
             ON CONFLICT (partition, record_offset) DO UPDATE SET
                 (reason, detail, key, value, headers, seen_at) = (excluded.reason, excluded.detail, excluded.key,
                     excluded.value, excluded.headers, excluded.seen_at)
             WHERE quarantine.value IS DISTINCT FROM excluded.value
         )
         SELECT count(*) FROM placed WHERE NOT has_room"
    )
}

/// Removes the records at these partitions and offsets. The locks are taken in one order, so that instances do not deadlock.
pub(super) const ACKNOWLEDGE: &str = "WITH locked AS (
         SELECT partition, record_offset FROM card.quarantine
         WHERE (partition, record_offset) IN (SELECT * FROM unnest($1::bigint[], $2::bigint[]))
         ORDER BY partition, record_offset FOR UPDATE
     )
     DELETE FROM card.quarantine AS stored USING locked
     WHERE stored.partition = locked.partition AND stored.record_offset = locked.record_offset";

impl Reader {
    pub(in crate::store) async fn quarantined(
        &self,
        limit: usize,
        after: Option<Place>,
    ) -> Result<Page<StoredRecord>, StoreError> {
        let (partition, offset) = after.map_or((-1, -1), |(partition, offset)| (i64::from(partition), offset as i64));
        let (rows, total) = self
            .database
            .read(async |client| {
                let page = "SELECT partition, record_offset, seen_at, reason, detail, key, value FROM card.quarantine
                     WHERE (partition, record_offset) > ($1, $2) ORDER BY partition, record_offset LIMIT $3";
                // At most MAX_RECORDS rows are counted.
                let count = client.prepare_cached("SELECT count(*) FROM card.quarantine").await?;
                let page = client.prepare_cached(page).await?;
                // One more than requested shows whether more follow.
                let limit = limit as i64 + 1;
                let parameters: [Parameter<'_>; 3] = [&partition, &offset, &limit];
                tokio::try_join!(client.query(&page, &parameters), client.query_one(&count, &[]))
            })
            .await?;
        let records = rows.iter().map(record).collect::<Result<_, _>>()?;
        Ok(Page::new(records, limit, total.get::<_, i64>(0) as u64))
    }

    pub(in crate::store) async fn quarantined_places(&self) -> Result<HashSet<Place>, StoreError> {
        let rows = self
            .database
            .read(async |client| client.query("SELECT partition, record_offset FROM card.quarantine", &[]).await);
        Ok(rows.await?.iter().map(|row| (row.get::<_, i64>(0) as u32, row.get::<_, i64>(1) as u64)).collect())
    }

    pub(in crate::store) async fn is_quarantined(&self, (partition, offset): Place) -> Result<bool, StoreError> {
        let found = self.database.read(async |client| {
            let sql = "SELECT FROM card.quarantine WHERE partition = $1 AND record_offset = $2";
            client.query_opt(&client.prepare_cached(sql).await?, &[&i64::from(partition), &(offset as i64)]).await
        });
        Ok(found.await?.is_some())
    }
}

fn record(row: &Row) -> Result<StoredRecord, StoreError> {
    Ok(StoredRecord {
        place: (row.get::<_, i64>(0) as u32, row.get::<_, i64>(1) as u64),
        timestamp: Timestamp::from_microsecond(row.get(2))
            .map_err(|error| StoreError::Unavailable(error.to_string()))?,
        reason: row.get(3),
        detail: row.get(4),
        key: row.get(5),
        value: row.get(6),
    })
}
