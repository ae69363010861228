//! Idempotency keys in the SQLite file.

use group_commit::StoreError;
use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::reader::Reader;
use super::{COLUMNS, card_from_row};
use crate::card_number::CardNumbering;
use crate::idempotency::{NewKey, StoredAnswer, StoredKeys};

impl Reader {
    /// What is stored under `key`, unless that was at `expired` or earlier.
    pub(in crate::store) async fn stored_key(
        &self,
        key: String,
        expired: i64,
    ) -> Result<Option<StoredAnswer>, StoreError> {
        let numbering = self.numbering.clone();
        let keys = vec![key];
        let stored = self.pool.read(move |connection| stored_keys(connection, &numbering, &keys, expired)).await?;
        Ok(stored.into_values().next())
    }
}

/// Those of `keys` that are stored, without those stored at `expired` or earlier. One statement for all.
pub(super) fn stored_keys(
    connection: &Connection,
    numbering: &CardNumbering,
    keys: &[String],
    expired: i64,
) -> rusqlite::Result<StoredKeys> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS}, key, fingerprint FROM idempotency_keys LEFT JOIN cards ON sequence = card_sequence
         WHERE idempotency_keys.caller = '' AND key IN (SELECT value FROM json_each(?1)) AND stored_at > ?2"
    ))?;
    let row = |row: &Row<'_>| {
        let is_creation = row.get::<_, Option<i64>>(0)?.is_some();
        let card = is_creation.then(|| card_from_row(row, numbering)).transpose()?;
        Ok((row.get(6)?, StoredAnswer { fingerprint: row.get(7)?, card }))
    };
    statement.query_map(params![serde_json::json!(keys).to_string(), expired], row)?.collect()
}

/// Stores `keys`. An expired key is replaced.
pub(super) fn store_keys(
    connection: &Connection,
    numbering: &CardNumbering,
    keys: &[NewKey],
    now: Timestamp,
) -> rusqlite::Result<()> {
    for NewKey { request, card_id } in keys {
        let sequence = card_id.map(|id| numbering.0.sequence_of_id(id) as i64);
        let mut insert = connection.prepare_cached(
            "INSERT OR REPLACE INTO idempotency_keys (caller, key, fingerprint, stored_at, card_sequence)
             VALUES ('', ?, ?, ?, ?)",
        )?;
        insert.execute(params![request.key, request.fingerprint, now.as_microsecond(), sequence])?;
    }
    Ok(())
}
