//! Claims on idempotency keys: rows of `idempotency_keys`, whose first columns are the same in both services.
//!
//! A transaction claims its keys before it locks anything else, sorted in all instances, so that no two wait for each other. A claim
//! inserts a row without a fingerprint, or locks the row that is there. The transaction fills in the rows of the commands that succeed,
//! and releases the other claims before it commits.

use tokio_postgres::{Client, Error, Statement};

use crate::{Parameter, query_if};

/// Idempotency keys by column, for UNNEST, in the order in which to claim them.
#[derive(Debug, Default)]
pub struct KeyColumns<'a> {
    /// The owners.
    pub callers: Vec<&'a str>,
    /// The keys.
    pub keys: Vec<&'a str>,
}

impl<'a> FromIterator<(&'a str, &'a str)> for KeyColumns<'a> {
    /// Collects pairs of an owner and a key.
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let (callers, keys) = pairs.into_iter().unzip();
        KeyColumns { callers, keys }
    }
}

/// The statements about claims and expired keys, prepared for one connection.
pub struct KeyClaims {
    claim: Statement,
    release: Statement,
    remove: Statement,
}

impl KeyClaims {
    /// Prepares the statements for the table in `schema`.
    pub async fn prepare(client: &Client, schema: &str) -> Result<Self, Error> {
        let prepare = async |sql: &str| client.prepare(&sql.replace("$schema", schema)).await;
        Ok(KeyClaims {
            // An expired key becomes a claim.
            claim: prepare(
                "INSERT INTO $schema.idempotency_keys (caller, key, stored_at)
                 SELECT caller, key, $3::bigint
                 FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS new (caller, key, place) ORDER BY place
                 ON CONFLICT (caller, key) DO UPDATE SET fingerprint = NULL, stored_at = excluded.stored_at
                 WHERE idempotency_keys.stored_at <= $4::bigint",
            )
            .await?,
            release: prepare(
                "DELETE FROM $schema.idempotency_keys
                 USING unnest($1::text[], $2::text[]) AS claimed (caller, key)
                 WHERE idempotency_keys.caller = claimed.caller AND idempotency_keys.key = claimed.key
                     AND fingerprint IS NULL",
            )
            .await?,
            // Rows that another transaction has locked are left for later.
            remove: prepare(
                "DELETE FROM $schema.idempotency_keys WHERE ctid = ANY(ARRAY(
                     SELECT ctid FROM $schema.idempotency_keys WHERE stored_at <= $1
                     ORDER BY stored_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
            )
            .await?,
        })
    }

    /// Claims `keys`, which are sorted, at the time `now`. Those stored at `expired` or earlier count as absent. Times are microseconds
    /// since 1970.
    pub async fn claim(&self, client: &Client, keys: &KeyColumns<'_>, now: i64, expired: i64) -> Result<(), Error> {
        let KeyColumns { callers, keys } = keys;
        query_if(!keys.is_empty(), client, &self.claim, [callers, keys, &now, &expired]).await.map(drop)
    }

    /// Releases those of `keys` that were not filled in; `filled` is the number of the others.
    pub async fn release(&self, client: &Client, keys: &KeyColumns<'_>, filled: usize) -> Result<(), Error> {
        let KeyColumns { callers, keys } = keys;
        query_if(filled < keys.len(), client, &self.release, [callers, keys]).await.map(drop)
    }

    /// Removes up to `limit` keys that were stored at `expired` or earlier, and returns their number.
    pub async fn remove(&self, client: &Client, expired: i64, limit: usize) -> Result<usize, Error> {
        if limit == 0 {
            return Ok(0);
        }
        let parameters: [Parameter<'_>; 2] = [&expired, &(limit as i64)];
        Ok(client.execute(&self.remove, &parameters).await? as usize)
    }
}
