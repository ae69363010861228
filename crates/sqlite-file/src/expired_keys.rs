//! Idempotency keys that have expired: rows at the front of `idempotency_keys`, whose columns `number` and `stored_at` are the same in
//! both services.

use rusqlite::{Connection, params};

/// Removes those of the oldest `limit` keys that were stored at `expired` (microseconds since 1970) or earlier, and returns their number.
pub fn remove_expired_keys(connection: &Connection, expired: i64, limit: usize) -> rusqlite::Result<usize> {
    if limit == 0 {
        return Ok(0);
    }
    let sql = "DELETE FROM idempotency_keys WHERE stored_at <= ?1
                   AND number IN (SELECT number FROM idempotency_keys ORDER BY number LIMIT ?2)";
    connection.prepare_cached(sql)?.execute(params![expired, limit as i64])
}
