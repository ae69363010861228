//! Idempotency keys in PostgreSQL.

use group_commit::StoreError;
use postgres::{KeyClaims, query_if};
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::{COLUMNS, Reader, card_from_row};
use crate::card_number::CardNumbering;
use crate::idempotency::{NewKey, StoredAnswer, StoredKeys};

/// The keys with the cards that their requests created.
const FROM: &str = "card.idempotency_keys LEFT JOIN card.cards ON id = card_id";

impl Reader {
    /// What is stored under `key`, unless that was at `expired` or earlier.
    pub(in crate::store) async fn stored_key(
        &self,
        key: String,
        expired: i64,
    ) -> Result<Option<StoredAnswer>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS}, key, fingerprint FROM {FROM} WHERE idempotency_keys.caller = '' AND key = $1 AND stored_at > $2"
        );
        let row = self.database.read(async |client| {
            let statement = client.prepare_cached(&sql).await?;
            client.query_opt(&statement, &[&key, &expired]).await
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
                    "SELECT {COLUMNS}, key, fingerprint FROM {FROM}
                     WHERE idempotency_keys.caller = '' AND key = ANY($1::text[]) AND fingerprint IS NOT NULL"
                ))
                .await?,
            fill: client
                .prepare(
                    "UPDATE card.idempotency_keys SET fingerprint = new.fingerprint, card_id = new.card_id
                     FROM unnest($1::text[], $2::bytea[], $3::uuid[]) AS new (key, fingerprint, card_id)
                     WHERE caller = '' AND idempotency_keys.key = new.key",
                )
                .await?,
        })
    }

    /// What is stored under `keys`, after they were claimed.
    pub(super) async fn stored(&self, client: &Client, keys: &Vec<String>) -> Result<Vec<Row>, tokio_postgres::Error> {
        query_if(!keys.is_empty(), client, &self.select, [keys]).await
    }

    /// Fills in the rows of `new`, and releases those of `keys` that are not among them. Removes up to `limit` keys that were stored
    /// at `expired` or earlier, and returns their number.
    pub(super) async fn store(
        &self,
        client: &Client,
        keys: &Vec<String>,
        new: &[NewKey],
        (expired, limit): (i64, usize),
    ) -> Result<usize, tokio_postgres::Error> {
        let names: Vec<&str> = new.iter().map(|new| new.request.key.as_str()).collect();
        let fingerprints: Vec<&[u8]> = new.iter().map(|new| new.request.fingerprint.as_slice()).collect();
        let cards: Vec<Option<Uuid>> = new.iter().map(|new| new.card_id).collect();
        let (_, _, removed) = tokio::try_join!(
            biased;
            query_if(!new.is_empty(), client, &self.fill, [&names, &fingerprints, &cards]),
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

fn stored_from_row(row: &Row, numbering: &CardNumbering) -> Result<(String, StoredAnswer), StoreError> {
    let fingerprint = row.get::<_, &[u8]>(7).try_into();
    let fingerprint = fingerprint.map_err(|_| StoreError::Damaged("a fingerprint has not 32 bytes".to_owned()))?;
    let is_creation = row.get::<_, Option<i64>>(0).is_some();
    let card = is_creation.then(|| card_from_row(row, numbering)).transpose()?;
    Ok((row.get(6), StoredAnswer { fingerprint, card }))
}
