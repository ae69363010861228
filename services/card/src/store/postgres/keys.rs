//! Idempotency keys in PostgreSQL.

use group_commit::StoreError;
use http_server::IdempotencyKey;
use postgres::{KeyClaims, KeyColumns, query_if};
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::{Reader, card_from_row};
use crate::card_number::CardNumbering;
use crate::idempotency::{NewKey, StoredAnswer, StoredKeys};

/// The cards that the requests of keys created, with the columns of [`card_from_row`], then those of the keys.
const SELECT: &str = "SELECT sequence, id, country, account_id, deleted, created_at, keys.caller, key, fingerprint
    FROM card.idempotency_keys AS keys LEFT JOIN card.cards ON id = card_id";

impl Reader {
    /// What is stored under `key`, unless that was at `expired` or earlier.
    pub(in crate::store) async fn stored_key(
        &self,
        IdempotencyKey { caller, key }: IdempotencyKey,
        expired: i64,
    ) -> Result<Option<StoredAnswer>, StoreError> {
        let sql = format!("{SELECT} WHERE keys.caller = $1 AND key = $2 AND stored_at > $3");
        let row = self.database.read(async |client| {
            let statement = client.prepare_cached(&sql).await?;
            client.query_opt(&statement, &[&&*caller, &key, &expired]).await
        });
        let stored = row.await?.map(|row| stored_from_row(&row, &self.numbering)).transpose()?;
        Ok(stored.map(|(_, stored)| stored))
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
            claims: KeyClaims::prepare(client, "card").await?,
            select: client
                .prepare(&format!(
                    "{SELECT} WHERE (keys.caller, key) IN (SELECT * FROM unnest($1::text[], $2::text[]))
                         AND fingerprint IS NOT NULL"
                ))
                .await?,
            fill: client
                .prepare(
                    "UPDATE card.idempotency_keys SET fingerprint = new.fingerprint, card_id = new.card_id
                     FROM unnest($1::text[], $2::text[], $3::bytea[], $4::uuid[]) AS new (caller, key, fingerprint, card_id)
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

    /// Fills in the rows of `new`, and releases those of `keys` that are not among them. Removes up to `limit` keys that were stored
    /// at `expired` or earlier, and returns their number.
    pub(super) async fn store(
        &self,
        client: &Client,
        keys: &KeyColumns<'_>,
        new: &[NewKey],
        (expired, limit): (i64, usize),
    ) -> Result<usize, tokio_postgres::Error> {
        let filled: KeyColumns<'_> = new.iter().map(|new| new.request.key.columns()).collect();
        let fingerprints: Vec<&[u8]> = new.iter().map(|new| new.request.fingerprint.as_slice()).collect();
        let cards: Vec<Option<Uuid>> = new.iter().map(|new| new.card_id).collect();
        let (_, _, removed) = tokio::try_join!(
            biased;
            query_if(!new.is_empty(), client, &self.fill, [&filled.callers, &filled.keys, &fingerprints, &cards]),
            self.claims.release(client, keys, new.len()),
            self.claims.remove(client, expired, limit),
        )?;
        Ok(removed)
    }
}

/// The stored keys in `rows`.
pub(super) fn stored_keys(rows: &[Row], numbering: &CardNumbering) -> Result<StoredKeys, StoreError> {
    rows.iter().map(|row| stored_from_row(row, numbering)).collect()
}

fn stored_from_row(row: &Row, numbering: &CardNumbering) -> Result<(IdempotencyKey, StoredAnswer), StoreError> {
    let fingerprint = row.get::<_, &[u8]>(8).try_into();
    let fingerprint = fingerprint.map_err(|_| StoreError::Damaged("a fingerprint has not 32 bytes".to_owned()))?;
    let is_creation = row.get::<_, Option<i64>>(0).is_some();
    let card = is_creation.then(|| card_from_row(row, numbering)).transpose()?;
    let key = IdempotencyKey { caller: row.get::<_, &str>(6).into(), key: row.get(7) };
    Ok((key, StoredAnswer { fingerprint, card }))
}
