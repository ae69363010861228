//! Idempotency keys in PostgreSQL.

use account_events::AccountId;
use group_commit::StoreError;
use http_server::IdempotencyKey;
use postgres::{KeyClaims, KeyColumns, query_if};
use tokio_postgres::{Client, Row, Statement};

use super::writer::Columns;
use super::{Reader, account_from_row};
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
        IdempotencyKey { caller, key }: IdempotencyKey,
        expired: i64,
    ) -> Result<Option<StoredAnswer>, StoreError> {
        let sql =
            format!("SELECT {COLUMNS} FROM account.idempotency_keys WHERE caller = $1 AND key = $2 AND stored_at > $3");
        let row = self.database.read(async |client| {
            let statement = client.prepare_cached(&sql).await?;
            client.query_opt(&statement, &[&&*caller, &key, &expired]).await
        });
        let stored = row.await?.map(|row| stored_from_row(&row, &self.numbering)).transpose()?;
        Ok(stored.map(|(_, stored)| stored))
    }

    /// Up to `limit` keys whose answers have the name of the account, without those stored at `expired` or earlier. Scans the keys.
    pub(in crate::store) async fn keys_with_name(
        &self,
        id: AccountId,
        expired: i64,
        limit: usize,
    ) -> Result<Vec<IdempotencyKey>, StoreError> {
        let sql = "SELECT caller, key FROM account.idempotency_keys
            WHERE account_id = $1 AND beholder_name <> $2 AND stored_at > $3 LIMIT $4";
        let limit = limit as i64;
        let rows = self.database.read(async |client| client.query(sql, &[&id.0, &ERASED, &expired, &limit]).await);
        let key = |row: &Row| IdempotencyKey { caller: row.get::<_, &str>(0).into(), key: row.get(1) };
        Ok(rows.await?.iter().map(key).collect())
    }
}

/// The statements about keys.
pub(super) struct KeyStatements {
    pub(super) claims: KeyClaims,
    select: Statement,
    fill: Statement,
}

impl KeyStatements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        Ok(KeyStatements {
            claims: KeyClaims::prepare(client, "account").await?,
            select: client
                .prepare(&format!(
                    "SELECT {COLUMNS} FROM account.idempotency_keys
                     WHERE (caller, key) IN (SELECT * FROM unnest($1::text[], $2::text[])) AND fingerprint IS NOT NULL"
                ))
                .await?,
            fill: client
                .prepare(
                    "UPDATE account.idempotency_keys SET fingerprint = new.fingerprint, account_sequence = new.sequence,
                         account_id = new.id, beholder_name = new.beholder_name, country_code = new.country_code,
                         status = new.status, version = new.version, event_version = new.event_version,
                         created_at = new.created_at, updated_at = new.updated_at
                     FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bigint[], $5::uuid[], $6::text[], $7::text[],
                         $8::text[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[])
                         AS new (caller, key, fingerprint, sequence, id, beholder_name, country_code, status, version,
                             event_version, created_at, updated_at)
                     WHERE idempotency_keys.caller = new.caller AND idempotency_keys.key = new.key",
                )
                .await?,
        })
    }

    /// What is stored under `keys`, after they were claimed.
    pub(super) async fn stored(
        &self,
        client: &Client,
        KeyColumns { callers, keys }: &KeyColumns<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        query_if(!keys.is_empty(), client, &self.select, [callers, keys]).await
    }

    /// Fills in the answers of `new`, and releases those of `keys` that have none. Removes up to `limit` keys that were stored at
    /// `expired` or earlier, and returns their number.
    pub(super) async fn store(
        &self,
        client: &Client,
        keys: &KeyColumns<'_>,
        new: &[NewKey],
        numbering: &AccountNumbering,
        (expired, limit): (i64, usize),
    ) -> Result<usize, tokio_postgres::Error> {
        let filled: KeyColumns<'_> = new.iter().map(|new| new.request.key.columns()).collect();
        let fingerprints: Vec<&[u8]> = new.iter().map(|new| new.request.fingerprint.as_slice()).collect();
        let sequence = |new: &NewKey| numbering.sequence(&new.account.account_number).unwrap_or_default() as i64;
        let sequences: Vec<i64> = new.iter().map(sequence).collect();
        let c = Columns::of(new.iter().map(|new| &new.account));
        let (_, _, removed) = tokio::try_join!(
            biased;
            query_if(
                !new.is_empty(),
                client,
                &self.fill,
                [
                    &filled.callers, &filled.keys, &fingerprints, &sequences, &c.ids, &c.names, &c.countries, &c.statuses, &c.versions,
                    &c.event_versions, &c.created, &c.updated,
                ],
            ),
            self.claims.release(client, keys, new.len()),
            self.claims.remove(client, expired, limit),
        )?;
        Ok(removed)
    }
}

/// The stored keys in `rows`.
pub(super) fn stored_keys(rows: &[Row], numbering: &AccountNumbering) -> Result<StoredKeys, StoreError> {
    rows.iter().map(|row| stored_from_row(row, numbering)).collect()
}

fn stored_from_row(row: &Row, numbering: &AccountNumbering) -> Result<(IdempotencyKey, StoredAnswer), StoreError> {
    let fingerprint = row.get::<_, &[u8]>(11).try_into();
    let fingerprint = fingerprint.map_err(|_| StoreError::Damaged("a fingerprint has not 32 bytes".to_owned()))?;
    let key = IdempotencyKey { caller: row.get::<_, &str>(9).into(), key: row.get(10) };
    Ok((key, StoredAnswer { fingerprint, account: account_from_row(row, numbering)? }))
}
