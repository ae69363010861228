//! Idempotency keys in the SQLite file.

use group_commit::StoreError;
use http_server::IdempotencyKey;
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
        key: IdempotencyKey,
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
    keys: &[IdempotencyKey],
    expired: i64,
) -> rusqlite::Result<StoredKeys> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS}, keys.caller, key, fingerprint
         FROM idempotency_keys AS keys LEFT JOIN cards ON sequence = card_sequence
         WHERE (keys.caller, key) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1)) AND stored_at > ?2"
    ))?;
    let row = |row: &Row<'_>| {
        let is_creation = row.get::<_, Option<i64>>(0)?.is_some();
        let card = is_creation.then(|| card_from_row(row, numbering)).transpose()?;
        let key = IdempotencyKey { caller: row.get(6)?, key: row.get(7)? };
        Ok((key, StoredAnswer { fingerprint: row.get(8)?, card }))
    };
    let pairs: Vec<_> = keys.iter().map(IdempotencyKey::columns).collect();
    statement.query_map(params![serde_json::json!(pairs).to_string(), expired], row)?.collect()
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
             VALUES (?, ?, ?, ?, ?)",
        )?;
        let (caller, key) = request.key.columns();
        insert.execute(params![caller, key, request.fingerprint, now.as_microsecond(), sequence])?;
    }
    Ok(())
}
