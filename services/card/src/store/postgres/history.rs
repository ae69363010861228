//! The history of cards in PostgreSQL.

use group_commit::StoreError;
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::Reader;
use crate::card::{CardChange, DeletionReason};

const HISTORY: &str = "SELECT created_at, cards.caller, deleted_at, reason, card_deletions.caller
    FROM card.cards LEFT JOIN card.card_deletions ON card_sequence = sequence WHERE id = $1";

/// Deletes the cards `$1` at the time `$2` on the requests of the callers `$3`.
pub(super) const DELETE: &str = "WITH deleted AS (
        UPDATE card.cards SET deleted = true FROM unnest($1::uuid[], $3::text[]) AS named (id, caller)
        WHERE cards.id = named.id RETURNING sequence, named.caller
    )
    INSERT INTO card.card_deletions SELECT sequence, $2::bigint, 'requested', caller FROM deleted";

/// Deletes the cards of the deleted accounts `$1` at the time `$2`.
pub(super) const DELETE_CLOSED: &str = "WITH deleted AS (
        UPDATE card.cards SET deleted = true WHERE account_id = ANY($1::uuid[]) AND NOT deleted RETURNING sequence
    )
    INSERT INTO card.card_deletions SELECT sequence, $2::bigint, 'account_deleted' FROM deleted";

impl Reader {
    /// What happened to the card with this id, newest first.
    pub(in crate::store) async fn history(&self, id: Uuid) -> Result<Option<Vec<CardChange>>, StoreError> {
        let row = self.database.read(async |client| {
            let statement = client.prepare_cached(HISTORY).await?;
            client.query_opt(&statement, &[&id]).await
        });
        row.await?.map(|row| changes_from_row(&row)).transpose()
    }
}

fn changes_from_row(row: &Row) -> Result<Vec<CardChange>, StoreError> {
    let time = |microseconds| {
        Timestamp::from_microsecond(microseconds).map_err(|error| StoreError::Unavailable(error.to_string()))
    };
    let mut changes = Vec::new();
    if let Some(deleted_at) = row.get(2) {
        let text: &str = row.get(3);
        let reason = DeletionReason::parse(text)
            .ok_or_else(|| StoreError::Unavailable(format!("unexpected value {text:?} in a row")))?;
        changes.push(CardChange::Deleted { at: time(deleted_at)?, caller: row.get(4), reason });
    }
    changes.push(CardChange::Created { at: time(row.get(0))?, caller: row.get(1) });
    Ok(changes)
}
