//! Idempotency keys in the SQLite file.

use account_events::AccountId;
use group_commit::StoreError;
use http_server::IdempotencyKey;
use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::account_from_row;
use super::reader::Reader;
use crate::account_number::AccountNumbering;
use crate::beholder_name::ERASED;
use crate::idempotency::{NewKey, StoredAnswer, StoredKeys};

/// The columns of [`account_from_row`], then those of the key.
const COLUMNS: &str =
    "account_sequence, account_id, beholder_name, country_code, status, version, event_version, created_at,
    updated_at, caller, key, fingerprint";

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

    /// Up to `limit` keys whose answers have the name of the account, without those stored at `expired` or earlier. Scans the keys.
    pub(in crate::store) async fn keys_with_name(
        &self,
        id: AccountId,
        expired: i64,
        limit: usize,
    ) -> Result<Vec<IdempotencyKey>, StoreError> {
        let sql = "SELECT caller, key FROM idempotency_keys
            WHERE account_id = ? AND beholder_name <> ? AND stored_at > ? LIMIT ?";
        let read = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let row = |row: &Row<'_>| Ok(IdempotencyKey { caller: row.get(0)?, key: row.get(1)? });
            statement.query_map(params![id.0.as_bytes(), ERASED, expired, limit as i64], row)?.collect()
        };
        self.pool.read(read).await
    }
}

/// Those of `keys` that are stored, without those stored at `expired` or earlier. One statement for all.
pub(super) fn stored_keys(
    connection: &Connection,
    numbering: &AccountNumbering,
    keys: &[IdempotencyKey],
    expired: i64,
) -> rusqlite::Result<StoredKeys> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM idempotency_keys
         WHERE (caller, key) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1)) AND stored_at > ?2"
    ))?;
    let row = |row: &Row<'_>| {
        let account = account_from_row(row, numbering)?;
        let key = IdempotencyKey { caller: row.get(9)?, key: row.get(10)? };
        Ok((key, StoredAnswer { fingerprint: row.get(11)?, account }))
    };
    let pairs: Vec<_> = keys.iter().map(IdempotencyKey::columns).collect();
    statement.query_map(params![serde_json::json!(pairs).to_string(), expired], row)?.collect()
}

/// Stores `keys`. An expired key is replaced.
pub(super) fn store_keys(
    connection: &Connection,
    numbering: &AccountNumbering,
    keys: &[NewKey],
    now: Timestamp,
) -> rusqlite::Result<()> {
    for NewKey { request, account } in keys {
        let mut insert = connection.prepare_cached(&format!(
            "INSERT OR REPLACE INTO idempotency_keys ({COLUMNS}, stored_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        ))?;
        let (caller, key) = request.key.columns();
        insert.execute(params![
            numbering.0.sequence_of_id(account.id.0) as i64,
            account.id.0.as_bytes(),
            account.beholder_name.as_str(),
            account.country_code.as_str(),
            account.status.as_str(),
            account.version,
            account.event_version,
            account.created_at.as_microsecond(),
            account.updated_at.as_microsecond(),
            caller,
            key,
            request.fingerprint,
            now.as_microsecond(),
        ])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use account_events::TraceParent;
    use clock::Clock;
    use group_commit::Committer;
    use http_server::KeyedRequest;
    use numbering::Numbering;
    use sqlite_file::SqliteFile;
    use uuid::Uuid;

    use super::super::SCHEMA;
    use super::super::writer::Writer;
    use super::*;
    use crate::account::{Change, Precondition};
    use crate::decide::Command;

    const TRACE: TraceParent = TraceParent { trace_id: 1, parent_id: 1, flags: 0 };

    fn new_key() -> IdempotencyKey {
        IdempotencyKey { caller: Arc::default(), key: Uuid::new_v4().to_string() }
    }

    #[test]
    fn new_keys_use_the_pages_of_removed_ones() {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteFile::open(&folder.path().join("account.db"), &SCHEMA).unwrap();
        let clock = Clock::fixed(0);
        let mut writer = Writer::of(&file, &AccountNumbering(Numbering::decimal([3; 16])), clock.clone());
        let (beholder_name, country_code) = ("Jane Doe".parse().unwrap(), "DE".parse().unwrap());
        let create = Command::Create { beholder_name, country_code, trace: TRACE, caller: None, key: None };
        let id = writer.commit(vec![create], false).unwrap().remove(0).unwrap().account.id;
        // An update to what is there already writes its key and nothing else.
        let update = |_| Command::Change {
            id,
            change: Change::Update { beholder_name: None, country_code: Some(country_code), status: None },
            precondition: Precondition::default(),
            trace: TRACE,
            caller: None,
            key: Some(Arc::new(KeyedRequest { key: new_key(), fingerprint: [7; 32] })),
        };
        let reader = file.reader().unwrap();
        let number = |sql: &str| reader.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        let mut first = None;
        for round in 0..4 {
            for _ in 0..20 {
                writer.commit((0..500).map(update).collect(), false).unwrap();
            }
            assert_eq!(number("SELECT count(*) FROM idempotency_keys"), 10_000, "round {round}: the earlier are gone");
            let pages = number("PRAGMA page_count");
            let first = *first.get_or_insert(pages);
            assert!(pages <= first * 5 / 4, "round {round}: {pages} pages, and {first} after the first one");
            clock.advance_micros(2 * 3_600_000_000);
        }
        while number("SELECT count(*) FROM idempotency_keys") > 0 {
            writer.idle().unwrap();
        }
    }
}
